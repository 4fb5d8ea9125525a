"""Decoder layers and head against the closed forms of a transformer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sympy import Expr, Integer, expand

from costmodel.blocks import (
    LayerTokens,
    Style,
    decoder_layers,
    decoder_weights,
    embedding,
    final_norm,
    lm_head,
)
from costmodel.catalog.models_io import list_models, load_model
from costmodel.ops import Op, exact
from costmodel.specs.model import TextSpec
from costmodel.symbols import sym

B, S, P, L, D_MODEL, H, G, D, F, W, N = (
    sym(name) for name in ("b", "s", "p", "L", "d", "H", "G", "D", "f", "W", "N")
)
EAGER, FUSED = Style(fused=False, attention="flash"), Style(fused=True, attention="flash")
LLAMA = load_model("llama-2-7b").text
GROUPED = load_model("llama-3-8b").text


def tokens(**changed: Expr) -> LayerTokens:
    values: dict[str, Any] = {
        "label": "", "layers": L, "hidden": S, "computed_kv": S, "mlp": S, "attending": S,
        "past": P,
    }  # fmt: skip
    return LayerTokens(**{**values, **changed})


def named(ops: Iterable[Op]) -> dict[str, Op]:
    return {op.name.partition(".")[2] or op.name: op for op in ops}


def counted(ops: Iterable[Op], part: str | None = None) -> Expr:
    chosen = (op for op in ops if op.matmul and part in (None, op.part))
    return expand(sum((op.flops * op.repeat for op in chosen), start=Integer(0)))


TEXTS = {
    "gated": LLAMA,
    "grouped": GROUPED,
    "biased": load_model("qwen2-vl-7b").text,
    "plain-mlp": LLAMA.model_copy(update={"gated_mlp": False, "mlp_bias": True}),
    "qk-norm": LLAMA.model_copy(update={"qk_norm": True, "norm": "layernorm"}),
}


@pytest.mark.parametrize("style", [EAGER, FUSED], ids=["eager", "fused"])
@pytest.mark.parametrize("spec", TEXTS.values(), ids=TEXTS)
def test_flops_of_the_layers_are_the_closed_form(spec: TextSpec, style: Style) -> None:
    ops = decoder_layers(spec, tokens(), style)
    matrices = 3 if spec.gated_mlp else 2
    # FORMATS, ground truth: linear 2 b S L (2 h^2 + 2 h h_kv + 3 h ff), attention 4 b L S^2 h;
    # here with h = H D, h_kv = G D, and p cached tokens beside the S new ones.
    linear = 2 * B * S * L * (2 * D_MODEL * H * D + 2 * D_MODEL * G * D + matrices * D_MODEL * F)
    assert counted(ops, "linear") == expand(linear)
    assert counted(ops, "attention") == expand(4 * B * L * S * (P + S) * H * D)


@pytest.mark.parametrize("implementation", ["flash", "sdpa", "eager"])
@pytest.mark.parametrize("spec", [LLAMA, GROUPED], ids=["multi-head", "grouped"])
def test_flops_do_not_depend_on_fusion_or_attention(spec: TextSpec, implementation: str) -> None:
    reference = counted(decoder_layers(spec, tokens(), FUSED))
    for fused in (False, True):
        style = Style(fused, implementation)  # type: ignore[arg-type]
        assert counted(decoder_layers(spec, tokens(), style)) == reference


def test_weight_bytes_read_by_a_layer_are_its_linear_parameters() -> None:
    for spec in TEXTS.values():
        for style in (EAGER, FUSED):
            ops = decoder_layers(spec, tokens(), style)
            read = sum((op.traffic.weights * op.repeat for op in ops), start=Integer(0))
            linear = next(item for item in decoder_weights(spec, style) if item.linear)
            assert expand(read).coeff(sym("bw")) == expand(linear.count)


def test_serving_fuses_and_the_reference_implementation_does_not() -> None:
    fused, eager = named(decoder_layers(LLAMA, tokens(), FUSED)), named(
        decoder_layers(LLAMA, tokens(), EAGER)
    )  # fmt: skip
    assert list(fused) == [
        "input_norm", "qkv_proj", "rotary", "kv_cache", "attention", "o_proj",
        "post_attention_norm", "gate_up_proj", "mlp_activation", "down_proj",
    ]  # fmt: skip
    assert list(eager) == [
        "input_norm", "q_proj", "k_proj", "v_proj", "rotary", "kv_cache", "attention", "o_proj",
        "attention_add", "post_attention_norm", "gate_proj", "up_proj", "mlp_activation",
        "down_proj", "mlp_add",
    ]  # fmt: skip

    def launches(ops: dict[str, Op]) -> int:
        return sum(int(op.launches) for op in ops.values())

    assert launches(fused) == 10
    # Norms 8 each, rotary 10, cache 2, activation and product 2, additions 1 each,
    # seven products, attention 1.
    assert launches(eager) == 2 * 8 + 10 + 2 + 2 + 2 * 1 + 7 + 1


def test_cache_traffic_of_a_concatenating_cache() -> None:
    fused, eager = (
        named(decoder_layers(LLAMA, tokens(), style))["kv_cache"].traffic
        for style in (FUSED, EAGER)
    )
    new = 2 * B * S * G * D
    assert fused.kv_write == new * sym("bkv")
    assert fused.kv_read == 0
    # DynamicCache of transformers concatenates: the past is read and written again.
    assert expand(eager.kv_write) == expand((new + 2 * B * P * G * D) * sym("bkv"))
    assert expand(eager.kv_read) == expand(2 * B * P * G * D * sym("bkv"))


def test_frozen_tokens_are_keys_but_no_queries() -> None:
    sk = sym("sk")
    ops = named(decoder_layers(LLAMA, tokens(computed_kv=sk), FUSED))
    assert counted([ops["attention"]]) == expand(4 * B * L * S * (P + sk) * H * D)
    assert ops["q_proj"].flops == 2 * B * S * H * D * D_MODEL
    assert ops["k_proj"].flops == ops["v_proj"].flops == 2 * B * sk * G * D * D_MODEL
    assert ops["kv_cache"].traffic.kv_write == 2 * B * sk * G * D * sym("bkv")
    assert dict(ops["input_norm"].shape)["rows"] == B * sk
    assert dict(ops["post_attention_norm"].shape)["rows"] == B * S
    moved = expand(ops["rotary"].traffic.act_in)
    assert moved == expand(sym("ba") * B * (S * H * D + sk * G * D))


def test_expanded_tokens_attend_and_are_cached_beyond_the_hidden_state() -> None:
    sa = sym("sa")
    ops = named(decoder_layers(LLAMA, tokens(attending=sa), FUSED))
    assert counted([ops["attention"]]) == expand(4 * B * L * sa * (P + sa) * H * D)
    assert expand(ops["qkv_proj"].flops - 2 * B * S * (H + 2 * G) * D * D_MODEL) == 0
    assert ops["kv_cache"].traffic.kv_write == 2 * B * sa * G * D * sym("bkv")


def test_tokens_that_skip_the_mlp() -> None:
    sm = sym("sm")
    ops = named(decoder_layers(LLAMA, tokens(mlp=sm), FUSED))
    assert ops["down_proj"].flops == 2 * B * sm * D_MODEL * F
    assert ops["gate_up_proj"].flops == 4 * B * sm * D_MODEL * F
    assert ops["o_proj"].flops == 2 * B * S * D_MODEL * H * D


@pytest.mark.parametrize("spec", [LLAMA, GROUPED], ids=["multi-head", "grouped"])
def test_devices_divide_the_work_and_reduce_twice_per_layer(spec: TextSpec) -> None:
    one = named(decoder_layers(spec, tokens(), FUSED))
    many = named(decoder_layers(spec, tokens(), Style(True, "flash", tp=4)))
    reduced = [name for name, op in many.items() if op.kind == "collective"]
    assert reduced == ["o_all_reduce", "down_all_reduce"]
    for name, op in one.items():
        if op.matmul:
            assert expand(many[name].flops * N - op.flops) == 0, name
            assert expand(many[name].traffic.weights * N - op.traffic.weights) == 0, name
    for name in reduced:
        assert dict(many[name].shape)["bytes"] == B * S * D_MODEL * sym("ba")
        assert many[name].repeat == L


def test_fewer_key_value_heads_than_devices_are_copied() -> None:
    # Llama-3-8B has 8 key/value heads: on 16 devices each device holds one.
    style = Style(True, "flash", tp=16)
    op = named(decoder_layers(GROUPED, tokens(), style))["qkv_proj"]
    values = {B: 1, S: 1, D_MODEL: 4096, H: 32, D: 128, N: 16}
    assert exact(dict(op.shape)["n"], values) == (32 // 16) * 128 + 2 * 128
    per_device = sum(
        (item.count / item.shards for item in decoder_weights(GROUPED, style) if item.linear),
        start=Integer(0),
    )
    sizes = {**values, G: 8, F: 14336, L: 1}
    # Two query heads and their output, one key and one value head, a 16th of the MLP.
    assert exact(per_device, sizes) == 4096 * (2 * 2 * 128 + 2 * 128) + 3 * 4096 * 14336 // 16


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # FORMATS, ground truth: 7B LLM without head 6,607,605,760 with 32064 rows of vocabulary.
        ("llava-1.5-7b", 6_607_605_760 + 131_334_144),
        # Touvron et al., arXiv:2307.09288: 6.74 B, 13.02 B, 68.98 B (exact: transformers' modules).
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        # Llama 3 model card: 8.03 B.
        ("llama-3-8b", 8_030_261_248),
    ],
)
def test_parameters_of_the_language_model(name: str, total: int) -> None:
    text = load_model(name).text
    values = {
        L: text.layers, D_MODEL: text.hidden_size, H: text.heads, G: text.kv_heads,
        D: text.head_dim, F: text.intermediate_size, W: text.vocab_size,
    }  # fmt: skip
    assert sum(exact(item.count, values) for item in decoder_weights(text, FUSED)) == total


def test_a_tied_head_has_no_parameters_but_still_works() -> None:
    tied = LLAMA.model_copy(update={"tie_word_embeddings": True})
    untied = {item.name for item in decoder_weights(LLAMA, FUSED)}
    assert untied - {item.name for item in decoder_weights(tied, FUSED)} == {"lm_head"}


@pytest.mark.parametrize("name", list_models())
def test_biases_and_norms_of_every_preset_are_counted(name: str) -> None:
    spec = load_model(name).text
    per_layer = {w.name: w.count for w in decoder_weights(spec, FUSED)}
    small = expand(per_layer["decoder.norms_and_biases"]).coeff(L)
    expected = 2 * D_MODEL + ((H + 2 * G) * D if spec.qkv_bias else 0)
    assert expand(small - expected) == 0


def test_head() -> None:
    (op,) = lm_head(FUSED)
    assert op.flops == 2 * B * sym("e") * D_MODEL * W
    assert op.traffic.weights == D_MODEL * W * sym("bo")
    sharded, gather = lm_head(Style(True, "flash", tp=2))
    assert sharded.flops * N == op.flops
    assert gather.kind == "collective"
    assert dict(gather.shape)["bytes"] == B * sym("e") * W * sym("ba")


def test_embedding_copies_rows_and_merges_visual_ones() -> None:
    lookup, merge = embedding(S, sym("v"), FUSED)
    assert lookup.traffic.act_in == B * S * D_MODEL * sym("bo")
    assert lookup.traffic.act_out == B * S * D_MODEL * sym("ba")
    assert expand(merge.traffic.total - 2 * B * sym("v") * D_MODEL * sym("ba")) == 0
    assert len(embedding(S, None, FUSED)) == 1
    names = [op.name for op in embedding(S, None, Style(True, "flash", tp=2))]
    assert names == ["embed_tokens", "embed_all_reduce"]


def test_final_norm_runs_over_every_position() -> None:
    assert dict(final_norm(LLAMA, S, FUSED).shape) == {"rows": B * S, "cols": D_MODEL}
