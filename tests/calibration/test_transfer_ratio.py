"""Ratios of sibling GPUs from end-to-end times."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration.transfer_ratio import further_scale, ratio_summary, time_ratios
from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import Chip

# Dense fp16 peak and bandwidth of the datasheets; the rest does not matter here.
A40 = Chip(149.7e12, 696e9, 6 * 2**20, 84, 56.25e9)
A6000 = Chip(154.8e12, 768e9, 6 * 2**20, 84, 56.25e9)


def frame(rows: list[tuple[str, int, str, str, float, bool]]) -> pd.DataFrame:
    columns = ["gpu", "n_gpus", "model", "phase", "time_ms", "suspect"]
    return pd.DataFrame(rows, columns=columns).assign(tokens=512, batch=1)


def test_only_good_points_of_both_count() -> None:
    ratios = time_ratios(
        frame(
            [
                ("new", 1, "8B F16", "prefill", 9.0, False),
                ("old", 1, "8B F16", "prefill", 10.0, False),
                ("old", 1, "8B F16", "decode", 10.0, True),
                ("new", 1, "8B F16", "decode", 1.0, False),
                ("new", 4, "8B Q4", "prefill", 1.0, False),
                ("old", 4, "8B Q4", "prefill", 1.0, False),
            ]
        ),
        "new",
        "old",
    )
    assert ratios[["model", "phase", "ratio"]].to_numpy().tolist() == [["8B F16", "prefill", 0.9]]
    scale = further_scale(ratios, A6000, A40)
    assert scale.compute == pytest.approx(0.9 * 154.8 / 149.7)
    assert scale.bandwidth == 1.0


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(CostModelError, match="new and old"):
        time_ratios(frame([("new", 1, "8B", "prefill", 9.0, False)]), "new", "old")


def test_a6000_is_faster_than_datasheets_let_expect(shared_dir: Path) -> None:
    """llama.cpp: prefill 0.88 to 0.93 and decode 0.84 to 0.88 of the A40's time."""
    measured = pd.read_csv(shared_dir / "measurements" / "e2e_llamacpp.csv")
    ratios = time_ratios(measured, "RTX-A6000", "A40")
    summary = ratio_summary(ratios)
    summary = summary[summary["model"] == "all"].sort_values("phase")
    assert summary["phase"].tolist() == ["decode", "prefill"]
    assert summary["n"].tolist() == [4, 4]
    assert summary["median"].tolist() == pytest.approx([0.856, 0.887], abs=0.001)
    assert summary["low"].tolist() == pytest.approx([0.842, 0.878], abs=0.001)
    assert summary["high"].tolist() == pytest.approx([0.882, 0.932], abs=0.001)
    scale = further_scale(ratios, A6000, A40)
    assert scale.compute == pytest.approx(0.944, abs=0.005)
    assert scale.bandwidth == pytest.approx(0.931, abs=0.005)
