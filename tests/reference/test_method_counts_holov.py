"""HoloV against its scoring and sharing out written in torch as the released code does it."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.case import prepare
from costmodel.evaluation import evaluate

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify

TOKENS, WIDTH, CROPS = 576, 4096, 16
LEFT: list[int] = []


def scores(crop: Any, attention: Any) -> Any:
    """Return the score of a crop: attention and scaled variance of similarity, averaged."""
    unit = crop / (crop.norm(dim=1, keepdim=True) + 1e-6)
    similar = torch.mm(unit, unit.transpose(0, 1)) * (1 - torch.eye(len(crop)))
    others = len(crop) - 1
    mean = similar.sum(dim=1) / others
    variance = ((similar - mean.unsqueeze(1)) ** 2).sum(dim=1) / others
    scaled = attention * 1e3
    factor = torch.mean(torch.abs(scaled)) / (torch.mean(torch.abs(variance)) + 1e-6)
    return (1 * scaled + 0.09 * (variance * factor)).mean()


def share_out(weights: Any, kept: int) -> Any:
    """Return the tokens of every crop, and one more for the best while some are left."""
    given = (weights * kept).floor().long()
    left = kept - given.sum()
    if left > 0:
        LEFT.append(int(left))
        best = torch.topk(weights, k=min(left.item(), len(weights))).indices
        for crop in best[:left]:
            given[crop] += 1
    return given


def holistic(tokens: Any, attention: Any, kept: int) -> Any:
    """Keep about `kept` tokens of one image, crop by crop."""
    size = len(tokens) // CROPS
    spans = [slice(i * size, (i + 1) * size) for i in range(CROPS)]
    places = [torch.arange(i * size, (i + 1) * size) for i in range(CROPS)]
    found = torch.stack([scores(tokens[span], attention[span]) for span in spans])
    weights = (found**1) / ((found**1).sum() + 1e-6)
    picked, positions = [], []
    for span, place, count in zip(spans, places, share_out(weights, kept), strict=True):
        if count <= 0:
            continue
        if count >= size:
            picked.append(tokens[span])
            positions.append(place)
            continue
        top = torch.topk(attention[span], k=min(count.item(), size)).indices
        picked.append(tokens[span][top])
        positions.append(place[top])
    chosen, where = torch.cat(picked), torch.cat(positions)
    return torch.stack([chosen]), torch.stack([where])


@pytest.mark.parametrize("kept", [64, 128, 192])
def test_crops_share_tokens(kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    tokens = torch.randn(TOKENS, WIDTH, generator=generator)
    attention = torch.rand(TOKENS, generator=generator) / TOKENS

    def run() -> Any:
        return holistic(tokens, attention, kept)

    LEFT.clear()
    calls = count_calls(run)
    left = sum(LEFT)
    case = prepare(
        "llava-1.5-7b", "a100", text_tokens=64, compress=f"holov:k={kept},leftover={left}",
        dtype="fp32",
    )  # fmt: skip
    program, plan = case.program()
    assert plan is not None
    names, evaluation = {op.name for op in plan.ops}, evaluate(program)
    own = [
        (float(f * r) * op.matmul, float(n * r), float(w * r))
        for op, f, n, w, r in zip(
            evaluation.ops, evaluation.flops, evaluation.launches, evaluation.host_syncs,
            evaluation.repeat, strict=True,
        )
        if op.name in names
    ]  # fmt: skip
    assert run()[0].shape == (1, kept, WIDTH)
    assert sum(flops for flops, _, _ in own) == count_flops(run)
    assert sum(count for _, count, _ in own) == pytest.approx(calls.launches, rel=0.1)
    assert sum(waits for _, _, waits in own) == calls.waits
    # Without being told, half of the crops are taken to be left a token.
    assert abs(left - CROPS / 2) <= 3
