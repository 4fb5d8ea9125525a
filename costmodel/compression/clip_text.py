"""The text tower of CLIP, which relevance to the question needs and LLaVA does not load."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sympy import Expr, Integer, Symbol

from costmodel.compression.method import Context
from costmodel.errors import UnsupportedError
from costmodel.ops import Op, Weights, activation, add, attention, copy, gemm, norm
from costmodel.symbols import sym

__all__ = ["ClipText", "clip_text_of", "clip_text_ops", "clip_text_weights"]


@dataclass(frozen=True)
class ClipText:
    """Sizes of a text tower and of the space it shares with its vision tower."""

    width: int
    heads: int
    layers: int
    intermediate: int
    positions: int
    vocabulary: int
    joint: int

    def values(self, segments: int) -> dict[Symbol, float]:
        """Return the values of its symbols for a question of `segments` segments."""
        sizes = {
            "dt": self.width, "Ht": self.heads, "Lt": self.layers, "ft": self.intermediate,
            "nt": self.positions, "st": segments, "Wt": self.vocabulary, "et": self.joint,
        }  # fmt: skip
        return {sym(name): float(size) for name, size in sizes.items()}


# https://huggingface.co/openai/clip-vit-large-patch14-336/blob/main/config.json
_VIT_L_14 = ClipText(
    width=768, heads=12, layers=12, intermediate=3072, positions=77, vocabulary=49408, joint=768
)


def clip_text_of(context: Context, method: str) -> ClipText:
    """Return the text tower that was trained with the model's vision tower.

    Raises
    ------
    UnsupportedError
        If the tower is not CLIP ViT-L/14, whose partner is the only one known here.
    """
    vision = context.vision
    size = (vision.hidden_size, vision.layers, vision.patch_size)
    if vision.model_type != "clip_vision_model" or size != (1024, 24, 14):
        raise UnsupportedError(
            "compress", method, "a model whose vision tower is CLIP ViT-L/14, such as "
            f"llava-1.5-7b: the text tower that goes with {context.model.name}'s is not known",
        )  # fmt: skip
    return _VIT_L_14


def clip_text_ops(label: str, context: Context) -> list[Op]:
    r"""Operators of the text tower, once per request, every segment padded to full length.

    .. math:: F = s_t \left[ L_t (n_t (8 d_t^2 + 4 d_t f_t) + 4 n_t^2 d_t) + 2 d_t e_t \right]

    Parameters
    ----------
    label : str
        Prefix of operator names.
    context : Context
        Its deployment says which attention runs and what is fused.

    Returns
    -------
    list of Op

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", arXiv:2103.00020.
    """
    run = context.deployment
    d, layers, segments = sym("dt"), sym("Lt"), sym("st")
    rows = segments * sym("nt")

    def linear(part: str, out: Expr, into: Expr) -> Op:
        return gemm(part, "compression", m=rows, n=out, k=into, bias=True, repeat=layers)

    def layer_norm(part: str, repeat: Expr) -> Op:
        return norm(
            part, "compression", rows=rows, cols=d, kind="layernorm", fused=False, repeat=repeat
        )

    ops = [
        copy("embed", "compression", rows=rows, cols=d, launches=Integer(3), passes=Integer(3),
             gather=True, note="words, positions, their sum"),
        layer_norm("norm_1", layers),
        linear("q_proj", d, d), linear("k_proj", d, d), linear("v_proj", d, d),
        *attention(
            "attention", "compression", kind="attention_encoder", impl=run.attention,
            batch=segments, q_len=sym("nt"), kv_len=sym("nt"), heads=sym("Ht"),
            kv_heads=sym("Ht"), head_dim=d / sym("Ht"), causal=True, repeat=layers,
        ),
        linear("o_proj", d, d),
        add("attention_add", "compression", rows=rows, cols=d, repeat=layers),
        layer_norm("norm_2", layers),
        linear("fc_1", sym("ft"), d),
        activation("quick_gelu", "compression", rows=rows, cols=sym("ft"), repeat=layers,
                   function="quick_gelu", gated=False, fused=run.fused),
        linear("fc_2", d, sym("ft")),
        add("mlp_add", "compression", rows=rows, cols=d, repeat=layers),
        layer_norm("final_norm", Integer(1)),
        copy("pool", "compression", rows=segments, cols=d, launches=Integer(4), gather=True,
             note="hidden state at the end of the text"),
        gemm("projection", "compression", m=segments, n=sym("et"), k=d),
    ]  # fmt: skip
    return [
        replace(op, name=f"{label}.{op.name}", part="other", repeat=op.repeat * sym("b"))
        for op in ops
    ]


def clip_text_weights(label: str) -> list[Weights]:
    """Return the parameters of the text tower and its projection."""
    d, f, layers = sym("dt"), sym("ft"), sym("Lt")
    return [
        Weights(f"{label}.linear", "compression",
                layers * (4 * d**2 + 2 * d * f) + d * sym("et")),
        Weights(f"{label}.norms_and_biases", "compression", layers * (9 * d + f) + 2 * d,
                linear=False),
        Weights(f"{label}.embeddings", "compression", (sym("Wt") + sym("nt")) * d, linear=False),
    ]  # fmt: skip
