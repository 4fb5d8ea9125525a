"""Saliency of the cost model against the runnable implementation: FLOPs and launches."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.case import prepare
from costmodel.evaluation import evaluate

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.method import MethodCase  # noqa: E402
from costmodel.reference.methods.saliency import METHOD  # noqa: E402

pytestmark = pytest.mark.verify

# LLaVA-1.5-7B's numbers; its embeddings are 4096 wide, 32 heads of 128.
TOKENS, WIDTH = 576, 4096


def model(compress: str, text: int, batch: int) -> dict[str, tuple[float, float, bool]]:
    """FLOPs, launches and whether it is a product, by operator."""
    case = prepare("llava-1.5-7b", "a100", text_tokens=text, batch=batch, compress=compress)
    evaluation = evaluate(case.program()[0])
    return {
        op.name: (float(flops * repeat), float(launches * repeat), op.matmul)
        for op, flops, launches, repeat in zip(
            evaluation.ops, evaluation.flops, evaluation.launches, evaluation.repeat, strict=True
        )
    }  # fmt: skip


def runnable(variant: str, text: int, kept: int, batch: int, **params: Any) -> Any:
    case = MethodCase(
        batch=batch, tokens=TOKENS, kept=kept, width=WIDTH, variant=variant,
        params={"text_tokens": text, **params},
    )  # fmt: skip
    return METHOD.prepare(case).run


@pytest.mark.parametrize("variant", ["embedding", "projected"])
@pytest.mark.parametrize(("text", "kept", "batch"), [(40, 64, 1), (7, 128, 2)])
def test_before_the_language_model(variant: str, text: int, kept: int, batch: int) -> None:
    run = runnable(variant, text, kept, batch)
    found = model(f"saliency:k={kept},variant={variant}", text, batch)
    own = [row for name, row in found.items() if name.startswith("saliency")]
    assert sum(flops for flops, _, matmul in own if matmul) == count_flops(run)
    # Run in fp32, where the softmax needs no cast.
    assert sum(launches for _, launches, _ in own) == pytest.approx(
        count_calls(run).launches, rel=0.1
    )


@pytest.mark.parametrize(("text", "kept"), [(40, 64), (36, 192)])
def test_attention_of_a_layer(text: int, kept: int) -> None:
    run = runnable("attention", text, kept, 1, heads=32, key_heads=32)
    found = model(f"saliency:k={kept},variant=layer", text, 1)
    # The product is the layer's own; its values are not multiplied in the runnable method.
    assert found["decoder_1.attention.qk"][0] == count_flops(run)
    own = sum(row[1] for name, row in found.items() if name.startswith("saliency"))
    scores = sum(found[f"decoder_1.attention.{part}"][1] for part in ("qk", "softmax"))
    # The runnable method makes its mask (2) and leaves the text out of what it gathers (3).
    assert own + scores == pytest.approx(count_calls(run).launches - 2 + 3, abs=1)
