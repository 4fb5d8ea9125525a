"""FastV and PyramidDrop: FLOPs and launches of the plans against the runnable methods."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from costmodel import estimate
from costmodel.reference.models.shapes import load_shape

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.models.fused import build_fused  # noqa: E402
from costmodel.reference.models.pruned import FastV, PyramidDrop  # noqa: E402

pytestmark = pytest.mark.verify

TEXT, VISUAL, START = 64, 576, 35
SHAPE = load_shape("llava-1.5-7b")
TINY = load_shape("llava-tiny")

LLAVA: list[tuple[str, Any]] = [
    *(
        (f"fastv:layer={layer},k={kept},variant={variant}", FastV(layer, kept, variant))
        for layer, kept in ((2, 144), (3, 288), (1, 1))
        for variant in ("paper", "released", "last-row")
    ),
    ("pyramiddrop:variant=lean", PyramidDrop.of_paper(32, VISUAL, "lean")),
]


@pytest.mark.parametrize(("compress", "method"), LLAVA, ids=[name for name, _ in LLAVA])
def test_flops_of_the_whole_prefill(compress: str, method: Any) -> None:
    """On meta tensors of LLaVA-1.5-7B, with attention whose products are counted."""
    model = build_fused(SHAPE, device="meta", attention="eager")
    hidden = torch.empty(1, TEXT + VISUAL, SHAPE.decoder.width, device="meta")
    cache = model.new_cache(1, TEXT + VISUAL)
    found = count_flops(partial(method.run, model.decoder, hidden, cache, START, VISUAL))
    said = estimate("llava-1.5-7b", "a100", text_tokens=TEXT, compress=compress).flops
    assert said["llm_prefill"] + said["compression"] == found


def test_flops_of_released_pyramiddrop() -> None:
    """Its loop asks the device for lengths, so that a small decoder runs on the CPU.

    The own products are formed from the sizes of that decoder in the plan's symbols.
    """
    model, d = build_fused(TINY, attention="eager"), TINY.decoder
    hidden = torch.randn(1, 20 + 64, d.width)
    counts, plain = (32, 16, 8), (64, 64, 64)
    run = partial(_prefill, model, hidden, 64)
    ranking = [PyramidDrop((1, 2, 3), plain, variant) for variant in ("released", "lean")]
    released, lean = (count_flops(partial(run, method)) for method in ranking)
    # Queries and values of all tokens beside the keys; lean projects one query.
    assert released - lean == 3 * (2 * 84 * 2 * d.width**2 - 2 * d.width**2)
    fewer = count_flops(partial(run, PyramidDrop((1, 2, 3), counts, "released")))
    assert fewer < released


def _prefill(model: Any, hidden: Any, visual: int, method: Any) -> None:
    batch, tokens = hidden.shape[:2]
    cache = model.new_cache(batch, tokens + 1)
    if method is None:
        model.decoder.prefill(hidden, cache)
    else:
        method.run(model.decoder, hidden, cache, 10, visual)


def pieces(batch: int, tokens: int) -> dict[str, int]:
    """Launches of the runnable norm and rotary positions, which the plan counts as one each."""
    model = build_fused(TINY)
    layer, states = model.decoder.layers[0], torch.randn(batch, tokens, TINY.decoder.width)
    rotary = model.decoder.rotary(torch.arange(tokens))
    norm = count_calls(lambda: layer.input_norm(states)).launches
    projected = count_calls(lambda: layer.project(states, rotary)).launches
    return {"norm": norm, "rotary": projected - norm - 1}


def counted(method: Any, batch: int) -> int:
    """Launches that a method adds to the decoder it runs in."""
    model = build_fused(TINY)
    hidden = torch.randn(batch, 20 + 64, TINY.decoder.width)
    runs = (partial(_prefill, model, hidden, 64, chosen) for chosen in (method, None))
    more, plain = (count_calls(run).launches for run in runs)
    return more - plain


def planned(compress: str, batch: int) -> dict[str, float]:
    found = estimate("llava-1.5-7b", "a100", text_tokens=TEXT, compress=compress, batch=batch)
    return {row.name: row.launches for row in found.ops if row.stage == "compression"}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["released", "lean"])
def test_launches_of_pyramiddrop(variant: Any, batch: int) -> None:
    launches = planned(f"pyramiddrop:variant={variant}", batch)
    part = pieces(batch, 84)
    # Three stages; norm and rotary of one kernel each are those of the runnable decoder.
    said = sum(launches.values()) + 3 * (part["norm"] - 1)
    if variant == "released":
        said += 3 * (part["rotary"] - 1)
    found = counted(PyramidDrop((1, 2, 3), (32, 16, 8), variant), batch)
    assert said == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["paper", "last-row"])
def test_launches_of_fastv(variant: Any, batch: int) -> None:
    said = sum(planned(f"fastv:variant={variant}", batch).values())
    found = counted(FastV(2, 16, variant), batch)
    if variant == "paper":
        # Eager attention in one layer, which is the decoder's and not the method's own.
        found -= eager_instead_of_flash(batch)
    assert said == pytest.approx(found, rel=0.1)


def eager_instead_of_flash(batch: int) -> int:
    """Launches that eager attention adds to a layer of the runnable decoder."""
    hidden = torch.randn(batch, 20 + 64, TINY.decoder.width)
    eager, flash = (
        count_calls(partial(_prefill, build_fused(TINY, attention=kind), hidden, 64, None)).launches
        for kind in ("eager", "flash")
    )  # fmt: skip
    return (eager - flash) // TINY.decoder.layers


@pytest.mark.parametrize("batch", [1, 3])
def test_launches_of_released_fastv(batch: int) -> None:
    said = sum(planned("fastv:variant=released", batch).values())
    part = pieces(batch, 84)
    # Two norms and rotary positions of one kernel each, two kernels of the cache and two
    # additions that the norms contain, and an activation in two kernels.
    said += 2 * (part["norm"] - 1) + part["rotary"] - 1 + 1 + 2 + 1
    # The runnable code shares projections and cache between both runs of the layer.
    found = counted(FastV(2, 16, "released"), batch)
    assert said == pytest.approx(found, rel=0.1)
