"""FasterVLM and VisPruner: bytes of their own kernels by hand, and where tokens go."""

from __future__ import annotations

import pytest

from costmodel import Estimate, estimate

PATCHES, WIDTH, HIDDEN, HEADS, HALF, INDEX = 576, 1024, 4096, 16, 2, 8


def made(compress: str) -> Estimate:
    return estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress=compress)


def own_bytes(compress: str) -> dict[str, float]:
    """Bytes moved by part of the method, all repeats."""
    return {
        row.name.partition(".")[2]: sum(row.bytes.values())
        for row in made(compress).ops
        if row.stage == "compression"
    }


def mean_over_heads() -> int:
    return PATCHES * HEADS * HALF + PATCHES * HALF


def masked(kept: int) -> int:
    """The mask is read, places are written and read, and tokens are."""
    return PATCHES + 2 * kept * INDEX + 2 * kept * HIDDEN * HALF


def test_fastervlm_kernel_by_kernel() -> None:
    kept = 64
    top_k = PATCHES * HALF + kept * (HALF + INDEX)
    mask = PATCHES + kept * (1 + INDEX)
    found = own_bytes(f"fastervlm:k={kept}")
    # Reading the places is counted as a write of the same size.
    assert found["choose"] == mean_over_heads() + top_k + mask
    assert found["gather"] == masked(kept)
    assert found["stack"] == 2 * kept * HIDDEN * HALF


def test_vispruner_kernel_by_kernel() -> None:
    kept = 64
    found = own_bytes(f"vispruner:k={kept}")
    sort = PATCHES * HALF + PATCHES * (HALF + INDEX)
    assert found["choose"] == mean_over_heads() + sort
    residual = similarity = distinct = 0
    left = PATCHES - kept // 2
    while left > kept // 2:
        even, odd = -(-left // 2), left // 2
        residual += 2 * left * WIDTH * HALF
        similarity += (even + odd) * WIDTH * HALF + even * odd * HALF
        best, order = even * (HALF + INDEX), even * (2 * HALF + INDEX)
        taken, joined = even * 3 * INDEX, 2 * left * INDEX
        distinct += even * odd * HALF + best + order + taken + joined
        left -= 8
    assert found["residual"] == residual
    assert found["similarity"] == pytest.approx(similarity, rel=1e-12)
    # The plan counts the 8 that a round removes as read and written, too.
    assert found["distinct"] == pytest.approx(distinct, rel=0.03)
    join = 2 * kept * INDEX + PATCHES + kept * (1 + INDEX)
    assert found["join"] == join
    assert found["gather"] == masked(kept)


@pytest.mark.parametrize("method", ["fastervlm", "vispruner"])
def test_before_the_projector_saves_its_work(method: str) -> None:
    after, before = (
        made(f"{method}:k=64,position={position}_projector") for position in ("after", "before")
    )
    plain = estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    assert after.flops["projector"] == plain.flops["projector"]
    assert before.flops["projector"] == plain.flops["projector"] * 64 / PATCHES
    assert after.flops["llm_prefill"] == before.flops["llm_prefill"]
    assert made(f"{method}:k=64").flops == after.flops


def test_the_host_waits_twice_in_each_round() -> None:
    def waits(kept: int) -> float:
        ops = made(f"vispruner:k={kept}").ops
        return sum(row.host_syncs for row in ops if row.stage == "compression")

    assert waits(PATCHES) == 1
    assert waits(64) == 1 + 2 * (PATCHES - 64) // 8
