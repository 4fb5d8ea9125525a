"""The two sides of every comparison: transformers' modules and our formulas.

transformers' modules are built from a configuration on the meta device, which works out
shapes and computes no numbers, and `torch.utils.flop_counter.FlopCounterMode` counts their
matrix products.  Attention is ``eager`` everywhere: the counter sees nothing of the fused
kernel of a CPU.  torch is imported where it is used, so that collecting costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import pytest
import sympy

from costmodel.catalog.families import read_config
from costmodel.catalog.models_io import load_model, load_preset
from costmodel.ops import exact
from costmodel.program import Phase, Program, build_program
from costmodel.specs.model import ModelSpec
from costmodel.specs.workload import Deployment, Workload
from costmodel.vision_tokens import ImageSize, VideoSize, VisualLayout, image_layouts
from costmodel.vision_tokens.layout import combine

Counts = dict[str, int]
"""FLOPs or parameters by part of the model."""

_BELOW_MODEL = {
    "LlavaForConditionalGeneration": ("vision_tower", "multi_modal_projector", "language_model"),
    "LlavaNextForConditionalGeneration": (
        "vision_tower",
        "multi_modal_projector",
        "language_model",
    ),
    "LlavaOnevisionForConditionalGeneration": (
        "vision_tower",
        "multi_modal_projector",
        "language_model",
    ),
    "InternVLForConditionalGeneration": ("vision_tower", "multi_modal_projector", "language_model"),
    "Idefics3ForConditionalGeneration": ("vision_model", "connector", "text_model"),
    "SmolVLMForConditionalGeneration": ("vision_model", "connector", "text_model"),
    "Qwen2VLForConditionalGeneration": ("visual", "visual.merger", "language_model"),
    "Qwen2_5_VLForConditionalGeneration": ("visual", "visual.merger", "language_model"),
}
"""Where each architecture keeps vision tower, projector and language model."""


@dataclass(frozen=True)
class Reference:
    """transformers' modules of one model.

    Attributes
    ----------
    spec : ModelSpec
        What we read from the same configuration.
    whole : Any
        The model with its head; None where transformers has the parts only.
    vision, projector, language, head : Any
        Its parts; no vision and projector for a language model.
    extra : tuple
        Parameters outside the parts that we count with the projector.
    """

    spec: ModelSpec
    whole: Any
    vision: Any
    projector: Any
    language: Any
    head: Any
    extra: tuple[Any, ...] = ()

    @property
    def parameters(self) -> Counts:
        """Parameters by part, each matrix counted where it first appears."""
        seen: set[int] = set()

        def fresh(tensors: Any) -> int:
            found = {id(tensor): tensor.numel() for tensor in tensors}
            new = {key: size for key, size in found.items() if key not in seen}
            seen.update(new)
            return sum(new.values())

        result = {"projector": fresh(self.extra), "vision_encoder": 0}
        if self.vision is not None:
            result["projector"] += fresh(self.projector.parameters())
            result["vision_encoder"] = fresh(self.vision.parameters())
        result["llm"] = fresh(self.language.parameters())
        result["lm_head"] = fresh(self.head.parameters())
        return result


def build(config: Mapping[str, Any], device: str = "meta", dtype: str = "float32") -> Any:
    """Make the model of `config`; transformers' class is the first of ``architectures``."""
    import torch
    import transformers

    keys = {k: v for k, v in config.items() if k not in ("model_type", "torch_dtype")}
    made = transformers.AutoConfig.for_model(config["model_type"], **keys)
    kind = getattr(transformers, config["architectures"][0])
    with torch.device(device):
        model = kind._from_config(
            made, attn_implementation="eager", dtype=getattr(torch, dtype)
        ).eval()
    return model


def parts_of(spec: ModelSpec, model: Any) -> Reference:
    """Take a model apart."""
    if spec.vision is None:
        return Reference(spec, model, None, None, model.model, model.lm_head)
    vision, projector, language = _BELOW_MODEL[type(model).__name__]
    newline = getattr(model.model, "image_newline", None)
    return Reference(
        spec=spec,
        whole=model,
        vision=attrgetter(vision)(model.model),
        projector=attrgetter(projector)(model.model),
        language=attrgetter(language)(model.model),
        head=model.lm_head,
        extra=() if newline is None else (newline,),
    )


def internvl_of_chat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite OpenGVLab's layout in transformers' keys."""
    tower = config["vision_config"]
    side, patch = tower["image_size"], tower["patch_size"]
    return {
        "model_type": "internvl",
        "architectures": ["InternVLForConditionalGeneration"],
        "text_config": config["llm_config"],
        "downsample_ratio": config["downsample_ratio"],
        "vision_feature_layer": config["select_layer"],
        "tie_word_embeddings": config["tie_word_embeddings"],
        "vision_config": {
            "hidden_size": tower["hidden_size"],
            "intermediate_size": tower["intermediate_size"],
            "num_hidden_layers": tower["num_hidden_layers"],
            "num_attention_heads": tower["num_attention_heads"],
            "image_size": [side, side],
            "patch_size": [patch, patch],
            "attention_bias": tower["qkv_bias"],
            "use_qk_norm": tower["qk_normalization"],
            "norm_type": tower["norm_type"],
        },
    }


def vila_projector(width: int, out: int) -> Any:
    """``mlp_downsample`` of NVlabs/VILA, ``multimodal_projector/base_projector.py``."""
    from torch import nn

    class DownSampleBlock(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            batch, tokens, channels = x.shape
            side = round(tokens**0.5)
            x = x.reshape(batch, side, side, channels)
            if side % 2:
                x = nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
                side += 1
            x = x.reshape(batch, side, side // 2, 2 * channels).permute(0, 2, 1, 3)
            x = x.reshape(batch, side // 2, side // 2, 4 * channels).permute(0, 2, 1, 3)
            return x.reshape(batch, -1, 4 * channels)

    return nn.Sequential(
        DownSampleBlock(),
        nn.LayerNorm(4 * width),
        nn.Linear(4 * width, out),
        nn.GELU(),
        nn.Linear(out, out),
    )


def vila_parts(spec: ModelSpec, config: Mapping[str, Any]) -> Reference:
    """VILA's tower and language model are transformers'; its projector is its own."""
    import torch
    import transformers

    tower = {k: v for k, v in config["vision_tower_cfg"].items() if k != "model_type"}
    language = build(config["llm_cfg"])
    with torch.device("meta"):
        vision = transformers.SiglipVisionModel._from_config(
            transformers.SiglipVisionConfig(**tower), attn_implementation="eager"
        ).eval()
        projector = vila_projector(tower["hidden_size"], config["llm_cfg"]["hidden_size"])
    return Reference(spec, None, vision, projector, language.model, language.lm_head)


@cache
def reference(name: str) -> Reference:
    """Build a preset at its full size on the meta device."""
    config = load_preset(name).config
    if config["model_type"] == "internvl_chat":
        return parts_of(load_model(name), build(internvl_of_chat(config)))
    if config["model_type"] == "llava_llama":
        return vila_parts(load_model(name), config)
    return parts_of(load_model(name), build(config))


def count_flops(run: Callable[[], Any], *modules: Any) -> tuple[Any, list[int]]:
    """Return what `run` returns, and FLOPs: all of them, then those inside each module."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    inside = [0] * len(modules)
    hooks = []
    for index, module in enumerate(modules):

        def enter(*_: Any, index: int = index) -> None:
            inside[index] -= counter.get_total_flops()

        def leave(*_: Any, index: int = index) -> None:
            inside[index] += counter.get_total_flops()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad(), counter:
            result = run()
    finally:
        for hook in hooks:
            hook.remove()
    return result, [counter.get_total_flops(), *inside]


# --- our side ------------------------------------------------------------------


def read(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> ModelSpec:
    """Read a configuration that no preset holds."""
    return read_config(config, preprocessor, "config.json")


def layout(
    spec: ModelSpec, images: Sequence[ImageSize] = (), videos: Sequence[VideoSize] = ()
) -> VisualLayout:
    """Return what the images and videos of one request become."""
    if spec.image_rule is None:
        return combine([])
    return combine(image_layouts(spec.image_rule, images, videos))


def program(
    spec: ModelSpec,
    images: Sequence[ImageSize] = (),
    videos: Sequence[VideoSize] = (),
    *,
    text: int = 1,
    batch: int = 1,
    **deployment: Any,
) -> Program:
    """Build our program of one request batch."""
    return build_program(
        spec,
        layout(spec, images, videos) if images or videos else None,
        Workload(batch=batch, text_tokens=text),
        Deployment.of(**deployment),
    )


def integers(made: Program, phase: Phase = "prefill") -> dict[sympy.Symbol, Any]:
    """Return every symbol's value as an exact number."""
    known = {symbol: sympy.Rational(value) for symbol, value in made.values.items()}
    waiting = dict(made.relations(phase))
    while waiting:
        done = {s: e.xreplace(known) for s, e in waiting.items() if e.free_symbols <= known.keys()}
        assert done, f"unresolved: {waiting}"
        known |= done
        waiting = {s: e for s, e in waiting.items() if s not in done}
    return known


def _exact(expression: sympy.Expr, known: Mapping[sympy.Symbol, Any]) -> int:
    return exact(expression, {symbol: known[symbol] for symbol in expression.free_symbols})


def our_flops(made: Program, phase: Phase = "prefill") -> Counts:
    """FLOPs of matrix products and convolutions by stage, in whole numbers."""
    known = integers(made, phase)
    result = dict.fromkeys(("vision_encoder", "projector", "compression", "llm", "lm_head"), 0)
    for op in made.phase_ops(phase):
        if op.matmul:
            result[op.stage] += _exact(op.flops * op.repeat, known)
    return result


def our_parameters(made: Program) -> Counts:
    """Parameters by stage, in whole numbers."""
    known = integers(made)
    result = dict.fromkeys(("vision_encoder", "projector", "llm", "lm_head"), 0)
    for item in made.weights:
        result[item.stage] = result.get(item.stage, 0) + _exact(item.count, known)
    return result


def our_cache_bytes(made: Program) -> int:
    """KV cache after the prompt, in whole numbers."""
    known = integers(made)
    return sum(_exact(group.bytes, known) for group in made.cache)


@dataclass(frozen=True)
class Truth:
    """The functions above, for tests: test files cannot import each other.

    Attributes
    ----------
    styles : tuple of dict
        Options of two ways to run a model that fuse differently and multiply the same.
    """

    styles: tuple[dict[str, Any], ...] = (
        {"runtime": "cuda-graph", "attention": "flash"},
        {"runtime": "eager", "attention": "eager"},
    )
    reference = staticmethod(reference)
    build = staticmethod(build)
    parts_of = staticmethod(parts_of)
    read = staticmethod(read)
    layout = staticmethod(layout)
    program = staticmethod(program)
    count_flops = staticmethod(count_flops)
    our_flops = staticmethod(our_flops)
    our_parameters = staticmethod(our_parameters)
    our_cache_bytes = staticmethod(our_cache_bytes)
    internvl_of_chat = staticmethod(internvl_of_chat)


@pytest.fixture(scope="session")
def truth() -> Truth:
    """Both sides of a comparison."""
    return Truth()
