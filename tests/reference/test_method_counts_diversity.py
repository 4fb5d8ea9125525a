"""DivPrune and CDPruner against their greedy searches written in torch as they are described."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.case import prepare
from costmodel.evaluation import evaluate

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify

TOKENS, WIDTH = 576, 4096


def own(compress: str) -> dict[str, tuple[float, float]]:
    """Products' FLOPs and launches of the method's operators, in fp32."""
    case = prepare("llava-1.5-7b", "a100", text_tokens=64, compress=compress, dtype="fp32")
    program, plan = case.program()
    assert plan is not None
    evaluation = evaluate(program)
    names = {op.name for op in plan.ops}
    return {
        op.name: (float(flops * repeat) * op.matmul, float(launches * repeat))
        for op, flops, launches, repeat in zip(
            evaluation.ops, evaluation.flops, evaluation.launches, evaluation.repeat, strict=True
        )
        if op.name in names
    }


def tokens(seed: int = 0) -> Any:
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def max_min(features: Any, kept: int, running: bool) -> Any:
    """Farthest-point sampling by cosine distance; the start is the most isolated token."""
    unit = features / features.norm(dim=1, keepdim=True)
    apart = 1 - torch.mm(unit, unit.t())
    chosen = torch.empty(kept, dtype=torch.long)
    nearest = apart.topk(2, dim=0, largest=False).values[1]
    chosen[0] = nearest.argmax()
    if running:
        nearest = apart[0]
    for step in range(1, kept):
        if running:
            row = apart.index_select(0, chosen[step - 1 : step])[0]
            nearest = row if step == 1 else torch.minimum(nearest, row)
        else:
            so_far = chosen.index_select(0, torch.arange(step))
            nearest = apart.index_select(0, so_far).min(dim=0).values
        chosen[step] = nearest.argmax()
    return features.index_select(0, chosen.sort().values)


@pytest.mark.parametrize("impl", ["released", "running"])
@pytest.mark.parametrize("kept", [16, 64])
def test_max_min_diversity(impl: str, kept: int) -> None:
    features = tokens()
    found = own(f"divprune:k={kept},impl={impl}")

    def run() -> Any:
        return max_min(features, kept, impl == "running")

    assert sum(flops for flops, _ in found.values()) == count_flops(run)
    launches = sum(count for _, count in found.values())
    assert launches == pytest.approx(count_calls(run).launches, rel=0.1)


def test_both_searches_choose_the_same() -> None:
    features = tokens(1)
    assert torch.equal(max_min(features, 40, True), max_min(features, 40, False))


def process(features: Any, relevance: Any, kept: int) -> Any:
    """Greedy maximum of log det by an incremental Cholesky factor (Chen et al., NeurIPS 2018)."""
    unit = features / features.norm(dim=-1, keepdim=True)
    similar = unit @ unit.transpose(1, 2)
    kernel = relevance.unsqueeze(2) * similar * relevance.unsqueeze(1)
    images = torch.arange
    count, size = features.shape[0], features.shape[1]
    factor = torch.zeros(kept, count, size)
    gain = torch.diagonal(kernel, dim1=1, dim2=2).clone()
    order = torch.empty((kept, count), dtype=torch.long)
    for step in range(kept):
        best = gain.argmax(dim=-1)
        order[step] = best
        known = factor[:step, images(count), best]
        row = kernel[images(count), best] - torch.einsum("tb,tbn->bn", known, factor[:step])
        row = row / torch.sqrt(gain[images(count), best]).unsqueeze(-1)
        factor[step] = row
        gain -= torch.square(row)
        gain[images(count), best] = -float("inf")
    mask = torch.zeros(count, size, dtype=torch.bool)
    mask.scatter_(1, torch.sort(order.t()).values, True)
    return features[mask]


@pytest.mark.parametrize("kept", [16, 64])
def test_a_determinantal_point_process(kept: int) -> None:
    features = tokens().unsqueeze(0)
    relevance = torch.rand(1, TOKENS, generator=torch.Generator().manual_seed(3)) + 0.1
    found = {
        name.partition(".")[2]: row
        for name, row in own(f"cdpruner:k={kept}").items()
        if ".text." not in name
    }

    def run() -> Any:
        return process(features, relevance, kept)

    parts = ("normalise", "similarity", "kernel", "start", "cholesky", "update", "gather")
    # The second step has one row: torch multiplies without a matrix product, which FLOP
    # counters leave out.
    assert sum(found[part][0] for part in parts) == count_flops(run) + 2 * TOKENS
    calls = count_calls(run)
    assert sum(found[part][1] for part in parts) == pytest.approx(calls.launches, rel=0.1)
    assert calls.waits == 1


def test_the_text_tower() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'measure'")
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, projection_dim=768, max_position_embeddings=77,
    )  # fmt: skip
    config._attn_implementation = "eager"
    with torch.device("meta"):
        tower = transformers.CLIPTextModelWithProjection(config).eval()
    ids = torch.zeros(1, 77, dtype=torch.long, device="meta")
    case = prepare(
        "llava-1.5-7b", "a100", text_tokens=64, compress="cdpruner:k=64", dtype="fp32",
        attention="eager", runtime="eager",
    )  # fmt: skip
    program, plan = case.program()
    assert plan is not None
    evaluation = evaluate(program)
    text = [
        (float(flops * repeat) * op.matmul, float(launches * repeat))
        for op, flops, launches, repeat in zip(
            evaluation.ops, evaluation.flops, evaluation.launches, evaluation.repeat, strict=True
        )
        if ".text." in op.name
    ]
    assert sum(flops for flops, _ in text) == count_flops(
        lambda: tower(input_ids=ids, attention_mask=torch.ones_like(ids))
    )
    small = transformers.CLIPTextConfig(
        vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=12,
        num_attention_heads=4, projection_dim=16, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    small._attn_implementation = "eager"
    runs = transformers.CLIPTextModelWithProjection(small).eval()
    real = torch.zeros(1, 77, dtype=torch.long)
    calls = count_calls(lambda: runs(input_ids=real, attention_mask=torch.ones_like(real)))
    # Beside the layers its eager form makes a mask, some twenty small kernels.
    assert sum(count for _, count in text) == pytest.approx(calls.launches, rel=0.1)
