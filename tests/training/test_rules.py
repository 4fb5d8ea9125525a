"""Passes over frozen and trained parts, overheads and energy, against figures of others."""

from __future__ import annotations

import pytest

from costmodel.training import passes
from costmodel.training.overheads import (
    energy_kwh,
    gather_bytes,
    optimizer_time_s,
    reduce_bytes,
)
from costmodel.training.recipe import Part

ALL: set[Part] = {"vision", "projector", "llm"}


@pytest.mark.parametrize(
    ("trained", "checkpointed", "expected"),
    [
        # Whatever is not behind a trained part has no backward pass, checkpointed or not.
        ({"llm"}, ALL, (1, 1, 4)),
        ({"projector"}, set(), (1, 3, 2)),
        ({"projector"}, {"llm"}, (1, 3, 3)),
        ({"projector", "llm"}, {"projector", "llm"}, (1, 4, 4)),
        ({"projector", "llm"}, set(), (1, 3, 3)),
        (ALL, ALL, (4, 4, 4)),
        ({"vision"}, {"llm"}, (3, 2, 3)),
    ],
)
def test_passes(
    trained: set[Part], checkpointed: set[Part], expected: tuple[int, int, int]
) -> None:
    assert tuple(found.total for found in passes(trained, checkpointed).values()) == expected


@pytest.mark.parametrize(
    ("gpu_hours", "printed_mwh"), [(82_432, 36), (135_168, 59), (530_432, 233), (1_022_362, 449)]
)
def test_energy_of_llama(gpu_hours: float, printed_mwh: int) -> None:
    """LLaMA, table 15, on A100 of 400 W; one unit of the last digit, as hours are rounded too."""
    assert energy_kwh(gpu_hours, 400) / 1e3 == pytest.approx(printed_mwh, abs=1.0)


def test_zero_3_moves_half_as_much_again() -> None:
    """ZeRO, section 7: 2 P below stage 3, 3 P in it, in 16 bits, with many GPUs."""
    many, params = 10_000, 7e9
    for zero, volume in ((1, 2.0), (2, 2.0), (3, 3.0)):
        moved = gather_bytes(params, many, zero) + reduce_bytes(params, many, zero)
        assert moved == pytest.approx(volume * 2 * params, rel=1e-3)


def test_one_gpu_sends_nothing() -> None:
    for zero in (1, 2, 3):
        assert gather_bytes(7e9, 1, zero) == reduce_bytes(7e9, 1, zero) == 0


def test_optimizer_is_shared_out() -> None:
    """AdamW in fp32 reads and writes 3 x 4 bytes, and 2 + 2 bytes of gradient and weight."""
    assert optimizer_time_s(1e9, 1, 1e9) == pytest.approx(28)
    assert optimizer_time_s(1e9, 8, 1e9) == pytest.approx(28 / 8)
