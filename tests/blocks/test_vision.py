"""Vision towers against closed forms, CLIP against counted operators."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from sympy import Expr, Integer, expand

from costmodel.blocks import (
    Sequences,
    Style,
    TowerTokens,
    vision_embedding,
    vision_layers,
    vision_post_norm,
    vision_weights,
)
from costmodel.catalog.models_io import list_models, load_model
from costmodel.ops import Op, exact
from costmodel.specs.model import VisionSpec
from costmodel.symbols import sym

EAGER, FUSED = Style(fused=False, attention="flash"), Style(fused=True, attention="flash")
B, T, NV, LV, WIDTH, INNER, FV = (
    sym("b"), sym("t"), sym("n"), sym("Lv"), sym("dv"), sym("Hv") * sym("Dv"), sym("fv"),
)  # fmt: skip


def tower(name: str) -> VisionSpec:
    vision = load_model(name).vision
    assert vision is not None
    return vision


TOWERS = {name: tower(name) for name in list_models() if load_model(name).vision is not None}
CLIP = TOWERS["llava-1.5-7b"]


def whole() -> TowerTokens:
    return TowerTokens("", LV, (Sequences(T, NV),), T * NV, T * NV)


def counted(ops: Iterable[Op]) -> Expr:
    return expand(sum((op.flops * op.repeat for op in ops if op.matmul), start=Integer(0)))


@pytest.mark.parametrize("style", [EAGER, FUSED], ids=["eager", "fused"])
@pytest.mark.parametrize("spec", TOWERS.values(), ids=TOWERS)
def test_flops_of_the_layers_are_the_closed_form(spec: VisionSpec, style: Style) -> None:
    rows = B * T * NV
    matrices = 3 if spec.gated_mlp else 2
    linear = rows * (8 * WIDTH * INNER + 2 * matrices * WIDTH * FV)
    attention = 4 * B * T * NV**2 * INNER
    assert counted(vision_layers(spec, whole(), style)) == expand(LV * (linear + attention))


@pytest.mark.parametrize("spec", TOWERS.values(), ids=TOWERS)
def test_parameters_are_read_by_the_layers(spec: VisionSpec) -> None:
    ops = vision_layers(spec, whole(), EAGER)
    read = expand(sum((op.traffic.weights for op in ops), start=Integer(0)))
    linear = next(item for item in vision_weights(spec) if item.linear)
    assert expand(read.coeff(sym("bw")) * sym("Mv") - linear.count) == 0
    small = next(item for item in vision_weights(spec) if not item.linear)
    assert expand(read.coeff(sym("bo")) - expand(small.count).coeff(sym("Mv"))) == 0


CLIP_SIZES = {
    sym("dv"): 1024, sym("Hv"): 16, sym("Dv"): 64, sym("fv"): 4096, sym("Mv"): 24,
    sym("P"): 14, sym("C"): 3, sym("Ev"): 577,
}  # fmt: skip


def test_parameters_of_clip() -> None:
    # FORMATS, ground truth: CLIP ViT-L/14-336 of transformers holds 303,507,456.
    assert sum(exact(item.count, CLIP_SIZES) for item in vision_weights(CLIP)) == 303_507_456


@pytest.mark.parametrize(
    ("layers", "gmac"),
    # FACTS 3: 190.96 GMAC with 24 layers and patch embedding, 183.02 with 23.
    [(24, 190.96), (23, 183.02)],
)
def test_multiply_adds_of_clip(layers: int, gmac: float) -> None:
    ops = [
        *vision_embedding(CLIP, sym("g"), NV, EAGER),
        *vision_layers(CLIP, whole(), EAGER),
    ]
    sizes = {**CLIP_SIZES, B: 1, T: 1, sym("g"): 576, NV: 577, LV: layers}
    macs = exact(counted(ops), sizes) / 2
    assert round(macs / 1e9, 2) == gmac


def test_parameters_of_siglip() -> None:
    # SigLIP-so400m/14-384 of LLaVA-OneVision without its pooling head, 26 of 27 layers.
    spec = TOWERS["llava-onevision-qwen2-7b"]
    layer = 4 * 1152**2 + 2 * 1152 * 4304 + 4 * 1152 + (4304 + 1152) + 4 * 1152
    rest = 3 * 14**2 * 1152 + 1152 + 729 * 1152 + 2 * 1152
    sizes = {
        sym("dv"): 1152, sym("Hv"): 16, sym("Dv"): 72, sym("fv"): 4304, sym("Mv"): 26,
        sym("P"): 14, sym("C"): 3, sym("Ev"): 729,
    }  # fmt: skip
    assert sum(exact(item.count, sizes) for item in vision_weights(spec)) == 26 * layer + rest


def test_patch_embedding_of_one_and_of_two_frames() -> None:
    (single, *_) = vision_embedding(CLIP, sym("g"), NV, EAGER)
    assert single.flops == 2 * B * sym("g") * WIDTH * sym("C") * sym("P") ** 2
    (paired, *_) = vision_embedding(TOWERS["qwen2-vl-7b"], sym("g"), NV, EAGER)
    assert expand(paired.flops - single.flops * sym("F")) == 0


def test_parts_before_and_after_the_layers() -> None:
    names = [op.name for op in vision_embedding(CLIP, sym("g"), NV, EAGER)]
    assert names == [
        "vision.patch_embed", "vision.class_token", "vision.positions", "vision.pre_norm",
    ]  # fmt: skip
    qwen = TOWERS["qwen2-vl-7b"]
    assert [op.name for op in vision_embedding(qwen, sym("g"), NV, EAGER)] == ["vision.patch_embed"]
    (post,) = vision_post_norm(CLIP, NV, T, EAGER)
    # Hugging Face's CLIP normalises the class token only.
    assert dict(post.shape)["rows"] == B * T
    siglip = TOWERS["llava-onevision-qwen2-7b"]
    (post,) = vision_post_norm(siglip, NV, T, EAGER)
    assert dict(post.shape)["rows"] == B * NV
    assert vision_post_norm(qwen, NV, T, EAGER) == []


def test_windows_attend_to_themselves() -> None:
    y, z = sym("y"), sym("z")
    parts = TowerTokens("_window", LV, (Sequences(y, z),), T * NV, T * NV)
    ops = {op.name: op for op in vision_layers(TOWERS["qwen2.5-vl-7b"], parts, EAGER)}
    assert ops["vision_window.attention"].flops == 4 * B * y * z**2 * INNER


def test_merged_tokens_skip_the_mlp_only() -> None:
    fewer = sym("m")
    parts = TowerTokens("", LV, (Sequences(T, NV),), T * NV, T * fewer)
    ops = {op.name: op for op in vision_layers(CLIP, parts, EAGER)}
    assert ops["vision.fc1"].flops == 2 * B * T * fewer * WIDTH * FV
    assert ops["vision.o_proj"].flops == 2 * B * T * NV * WIDTH * INNER
    assert dict(ops["vision.norm_2"].shape)["rows"] == B * T * fewer


def test_eager_towers_add_and_scale_in_kernels_of_their_own() -> None:
    intern = TOWERS["internvl3-8b"]
    eager = {op.name for op in vision_layers(intern, whole(), EAGER)}
    fused = {op.name for op in vision_layers(intern, whole(), FUSED)}
    assert eager - fused >= {
        "vision.attention_scale", "vision.attention_add", "vision.mlp_scale", "vision.mlp_add",
    }  # fmt: skip
    # timm-like code has one qkv product even in the reference implementation.
    assert "vision.qkv_proj" in eager
    assert "vision.q_proj" in {op.name for op in vision_layers(CLIP, whole(), EAGER)}
