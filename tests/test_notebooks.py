"""Every notebook runs from top to bottom and shows something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(notebook))
    assert names["__doc__"] is None, "a notebook starts with a markdown cell, not a docstring"
    assert notebook.read_text(encoding="utf-8").count("# %% [markdown]") >= 3


def test_tour_decides_on_numbers_that_hold() -> None:
    # The last cell's text rests on these; a change of the model must change the text.
    tour = next(path for path in NOTEBOOKS if path.stem == "tour")
    rows = dict(runpy.run_path(str(tour))["rows"])
    launches = {
        label.partition(":")[0]: sum(
            op.launches for op in estimate.ops if op.stage == "compression"
        )
        for label, estimate in rows.items()
    }
    assert launches["cluster"] > 300
    assert max(launches[name] for name in ("random", "avgpool", "stf")) < 10
    ttft = {label.partition(":")[0]: estimate.time_s["ttft"] for label, estimate in rows.items()}
    assert max(ttft[name] for name in ("random", "avgpool", "stf")) < ttft["cluster"] < ttft["none"]
