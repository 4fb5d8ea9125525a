"""Projectors against published parameters and hand-computed FLOPs."""

from __future__ import annotations

import pytest
from sympy import Expr, Integer, expand

from costmodel.blocks import Style, projector, projector_weights
from costmodel.catalog.models_io import list_models, load_model
from costmodel.ops import Op, exact
from costmodel.specs.model import ProjectorSpec
from costmodel.symbols import indexed, sym

EAGER = Style(fused=False, attention="flash")


def spec_of(name: str) -> ProjectorSpec:
    spec = load_model(name).projector
    assert spec is not None
    return spec


def sizes(spec: ProjectorSpec, rows: int) -> dict[Expr, int]:
    count = len(spec.widths)
    return {
        sym("b"): 1, sym("r"): rows, sym("q"): spec.merge, sym("di"): spec.in_features,
        **{indexed("w", index, count): width for index, width in enumerate(spec.widths)},
    }  # fmt: skip


def counted(ops: list[Op]) -> Expr:
    return expand(sum((op.flops * op.repeat for op in ops if op.matmul), start=Integer(0)))


@pytest.mark.parametrize(
    ("name", "rows", "flops", "params"),
    [
        # FORMATS, ground truth.
        ("llava-1.5-7b", 576, 24_159_191_040, 20_979_712),
        ("llava-1.5-13b", 576, 36_238_786_560, None),
    ],
)
def test_projector_of_llava(name: str, rows: int, flops: int, params: int | None) -> None:
    spec = spec_of(name)
    assert exact(counted(projector(spec, sym("r"), EAGER, False)), sizes(spec, rows)) == flops
    if params is not None:
        found = sum(exact(item.count, sizes(spec, rows)) for item in projector_weights(spec))
        assert found == params


WITH_VISION = [name for name in list_models() if load_model(name).vision is not None]


@pytest.mark.parametrize("name", WITH_VISION)
def test_parameters_and_flops_of_every_preset_by_hand(name: str) -> None:
    spec = spec_of(name)
    into = spec.in_features * spec.merge**2
    norm_width = into if spec.norm_after_merge else spec.in_features
    params = {None: 0, "layernorm": 2 * norm_width, "rmsnorm": norm_width}[spec.norm]
    flops = 0
    for width in spec.widths:
        params += into * width + (width if spec.bias else 0)
        flops += 2 * 10 * into * width
        into = width
    params += into if spec.newline else 0
    values = sizes(spec, 10)
    assert sum(exact(item.count, values) for item in projector_weights(spec)) == params
    assert exact(counted(projector(spec, sym("r"), EAGER, False)), values) == flops


def test_a_norm_before_the_merge_sees_more_and_narrower_rows() -> None:
    spec = spec_of("qwen2-vl-7b")
    assert not spec.norm_after_merge
    ops = {op.name: op for op in projector(spec, sym("r"), EAGER, False)}
    values = sizes(spec, 10)
    rows = {name: exact(size, values) for name, size in ops["projector.norm"].shape}
    assert rows == {"rows": 40, "cols": 1280}
    after = {
        op.name: op for op in projector(spec_of("vila-1.5-3b"), sym("r"), EAGER, False)
    }  # fmt: skip
    values = sizes(spec_of("vila-1.5-3b"), 10)
    rows = {name: exact(size, values) for name, size in after["projector.norm"].shape}
    assert rows == {"rows": 10, "cols": 4 * 1152}


def test_order_of_the_operators() -> None:
    vila = [op.name for op in projector(spec_of("vila-1.5-3b"), sym("r"), EAGER, False)]
    assert vila == [
        "projector.merge", "projector.norm", "projector.linear_1", "projector.activation_1",
        "projector.linear_2",
    ]  # fmt: skip
    llava = [op.name for op in projector(spec_of("llava-next-vicuna-7b"), sym("r"), EAGER, True)]
    assert llava[-1] == "projector.newlines"
