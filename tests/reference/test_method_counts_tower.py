"""Methods in and after the vision tower: FLOPs, launches and waits against runnable ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sympy import Expr, Integer

from costmodel.compression.method import Context, parse
from costmodel.compression.token_merging import merge_step, size_bias
from costmodel.estimation import prepare
from costmodel.ops import AttentionImpl, Op, exact
from costmodel.symbols import sym

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods import (  # noqa: E402
    prumerge,
    prumerge_plus,
    tome,
    visionzip,
)
from costmodel.reference.methods.counting import Calls, count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.method import MethodCase, ReferenceMethod  # noqa: E402

pytestmark = pytest.mark.verify


def context(dtype: str) -> Context:
    """A plan needs a model; every size of it is replaced in the sums."""
    case = prepare("llava-1.5-7b", "a100", text_tokens=64, dtype=dtype)
    return Context(case.model, case.images, case.deployment)


CONTEXT = context("fp32")


def summed(ops: Sequence[Op], quantity: str, **sizes: int) -> int:
    values = {sym(name): value for name, value in sizes.items()}
    terms: list[Expr] = []
    for op in ops:
        if quantity == "flops" and not op.matmul:
            continue
        terms.append(getattr(op, quantity) * op.repeat)
    return exact(sum(terms, start=Integer(0)), values)


def counted(method: ReferenceMethod, case: MethodCase) -> tuple[Calls, int]:
    ready = method.prepare(case)
    return count_calls(ready.run), count_flops(ready.run)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("tokens", "kept"), [(64, 50), (63, 40), (576, 551)])
def test_one_merging_step(batch: int, tokens: int, kept: int) -> None:
    heads, width = 4, 32
    found, flops = counted(
        tome.METHOD, MethodCase(batch, tokens, kept, width, params={"heads": heads})
    )
    ops = merge_step(
        "step", Integer(batch), Integer(tokens + 1), Integer(kept + 1), first=False
    )  # fmt: skip
    sizes = {"dv": width, "Hv": heads, "Dv": width // heads, "ba": 4}
    assert summed(ops, "flops", **sizes) == flops
    assert summed(ops, "launches", **sizes) == found.launches
    assert summed(ops, "host_syncs", **sizes) == found.waits == 0


@pytest.mark.parametrize("fused", [False, True])
def test_a_tower_that_merges(fused: bool) -> None:
    layers, kept = 4, 20
    params = {"heads": 4, "layers": layers, "mlp_width": 48, "fused": fused}

    def run(remaining: int) -> tuple[Calls, int]:
        case = MethodCase(2, 36, remaining, 32, variant="tower", params=params)
        return counted(tome.METHOD, case)

    (merging, _), (plain, _) = run(kept), run(36)
    ops: list[Op] = []
    now = 37
    for layer, removed in enumerate(tome.even_schedule(36, kept, layers)):
        if layer:
            impl: AttentionImpl = "sdpa" if fused else "eager"
            ops.append(size_bias(f"block_{layer}", Integer(2), Integer(now), impl))
        after = Integer(now - removed)
        ops += merge_step(f"block_{layer}", Integer(2), Integer(now), after, layer == 0)
        now -= removed
    sizes = {"dv": 32, "Hv": 4, "Dv": 8, "ba": 4}
    added = merging.launches - plain.launches
    predicted = summed(ops, "launches", **sizes)
    # A fused kernel with a mask is dispatched through more operators on the CPU.
    assert abs(predicted - added) <= 0.1 * added
    assert fused or predicted == added


@pytest.mark.parametrize("kept", [392, 192, 64])
def test_the_schedule_is_that_of_the_runnable_tower(kept: int) -> None:
    plan = parse(f"tome:kept={kept}").plan(CONTEXT)
    removed = tome.even_schedule(576, kept, 23)
    expected, now = 0, 577
    for one in removed:
        expected += 2 * -(-now // 2) * (now // 2) * 64
        now -= one
    sizes = {sym(name): size for name, size in {"b": 1, "t": 1, "n": 577, "Dv": 64}.items()}
    products = [op for op in plan.ops if op.matmul]
    found = sum(op.flops.subs({**plan.values, **sizes}) for op in products)
    assert found == expected
    assert [group.layers for group in plan.tower_groups] == [1] * 24
    # 19 kernels per block, ones at first; two for the bias, also in the block that is not read.
    assert plan.launches == 23 * 19 + 1 + 23 * 2


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("contextual", [None, 0, 3])
@pytest.mark.parametrize("variant", ["released", "fused"])
def test_visionzip(variant: str, contextual: int | None, batch: int) -> None:
    tokens, kept, heads, width = 144, 20, 4, 64
    params = {"heads": heads, "contextual": contextual}
    found, flops = counted(
        visionzip.METHOD, MethodCase(batch, tokens, kept, width, variant=variant, params=params)
    )
    means = round(kept * 10 / 64) if contextual is None else contextual
    asked = "" if contextual is None else f",contextual={contextual}"
    ops = parse(f"visionzip:k={kept},impl={variant}{asked}").plan(CONTEXT).ops
    sizes = {"b": batch, "t": 1, "g": tokens, "n": tokens + 1, "kt": kept, "kc": means,
             "dv": width, "Hv": heads, "Dv": width // heads, "ba": 4}  # fmt: skip
    assert summed(ops, "flops", **sizes) == flops
    assert summed(ops, "launches", **sizes) == found.launches
    assert summed(ops, "host_syncs", **sizes) == found.waits


def prumerge_sizes(batch: int, tokens: int, kept: int, width: int, dtype: Any) -> dict[str, int]:
    return {"b": batch, "t": 1, "g": tokens, "n": tokens + 1, "kt": kept, "dv": width, "nb": 32,
            "ba": dtype.itemsize}  # fmt: skip


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["released", "fused"])
def test_prumerge(variant: str, batch: int, dtype: str) -> None:
    tokens, kept, width, fused = 576, 33, 64, variant == "fused"
    case = MethodCase(batch, tokens, kept, width, dtype=dtype, variant=variant)
    found, flops = counted(prumerge.METHOD, case)
    ops = parse(f"prumerge:kept={kept},impl={variant}").plan(context(dtype)).ops
    sizes = prumerge_sizes(batch, tokens, kept, width, case.torch_dtype)
    assert summed(ops, "flops", **sizes) == flops
    predicted = summed(ops, "launches", **sizes)
    assert abs(predicted - found.launches) <= 0.1 * found.launches
    if not fused:
        # On the CPU nothing is copied to the host, and none waits for it.
        assert predicted == found.launches + 1
        assert summed(ops, "host_syncs", **sizes) == 1
    else:
        assert summed(ops, "host_syncs", **sizes) == found.waits


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", ["released", "fused"])
@pytest.mark.parametrize("kept", [97, 144])
def test_prumerge_plus(variant: str, kept: int, dtype: str) -> None:
    """The plan takes the mean number of outliers; here it is that of the runnable case."""
    case = MethodCase(1, 576, kept, 64, dtype=dtype, variant=variant)
    found, flops = counted(prumerge_plus.METHOD, case)
    outliers = len(prumerge_plus._outliers(case))
    grid = len(range(0, 575, prumerge_plus.grid_step(outliers / 576)))
    plan = parse(f"prumerge-plus:kept={kept},impl={variant}").plan(context(dtype))
    sizes = prumerge_sizes(1, 576, kept, 64, case.torch_dtype) | {"ko": outliers, "kg": grid}
    assert summed(plan.ops, "flops", **sizes) == flops
    predicted = summed(plan.ops, "launches", **sizes)
    assert abs(predicted - found.launches) <= 0.1 * found.launches
    syncs = summed(plan.ops, "host_syncs", **sizes)
    # Copies, of the attention to the host and of the list of added patches to the device, are no
    # waits on the CPU.
    assert syncs == found.waits + 2 * (variant == "released")


def test_python_sums_a_tensor_element_by_element() -> None:
    """What makes DyMU's released merging slow: ``sum`` of a tensor is a kernel per element."""
    above = torch.rand(289) > 0.5
    assert count_calls(lambda: sum(above)).operators == {"aten::add": 289}
    assert count_calls(above.sum).launches == 1
