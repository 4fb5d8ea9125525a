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
    names = {"cluster:k=144": "cluster", "cluster:k=144,impl=compiled": "compiled"}

    def name(label: str) -> str:
        return names.get(label, label.partition(":")[0])

    launches = {
        name(label): sum(op.launches for op in estimate.ops if op.stage == "compression")
        for label, estimate in rows.items()
    }
    cheap = ("random", "avgpool", "stf")
    assert launches["cluster"] > 1000
    assert max(launches[method] for method in cheap) < 10
    ttft = {name(label): estimate.time_s["ttft"] for label, estimate in rows.items()}
    assert max(ttft[method] for method in cheap) < ttft["compiled"]
    assert ttft["compiled"] < ttft["none"] < ttft["cluster"]
