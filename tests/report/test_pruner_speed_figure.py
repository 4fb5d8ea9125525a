"""The figure of FLOPs ratios against time ratios shows every row once."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.report.pruner_speed_figure import pruner_speed_figure
from costmodel.studies.pruner_speed import pruner_speed


def test_every_row_is_a_point_with_its_band(tmp_path: Path) -> None:
    rows = pruner_speed(budgets=[64], methods=["random", "cluster", "visionzip"])
    figure = pruner_speed_figure(rows)
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    points = {(x, y) for trace in marks for x, y in zip(trace.x, trace.y, strict=True)}
    assert points == {(row.flops_ratio, row.ttft_ratio) for row in rows}
    assert sum(len(trace.x) for trace in marks) == len(rows) == 12
    highest = max(
        y + more
        for trace in marks
        for y, more in zip(trace.y, trace.error_y.array, strict=True)
    )  # fmt: skip
    assert highest == pytest.approx(max(row.baseline_ttft_s / row.band_s[0] for row in rows))
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert len(names) == len(set(names))
    assert {"as the FLOPs", "no faster", "own overhead", "weight-read floor"} <= set(names)
    path = tmp_path / "figure.html"
    figure.write_html(path)
    assert "<script src=" not in path.read_text(encoding="utf-8")
