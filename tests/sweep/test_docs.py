"""The worked example runs as it is printed."""

from __future__ import annotations

from pathlib import Path

import yaml

from costmodel.sweep.running import prepare_sweep, to_frame

DOCS = Path(__file__).parents[2] / "docs"


def test_example_is_the_file_and_runs() -> None:
    page = (DOCS / "sweeps.md").read_text(encoding="utf-8")
    printed = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    path = DOCS / "examples" / "sweep.yaml"
    assert printed == yaml.safe_load(path.read_text(encoding="utf-8"))
    prepared = prepare_sweep(path)
    assert f"This one has {prepared.plan.points:,} points." in page
    frame = to_frame(prepared)
    assert len(frame) == prepared.plan.points
    assert not frame.drop(columns="method").isna().any(axis=None)
    # Fewer tokens never take longer, but for the dips of calibrated kernels.
    own = frame[(frame["method"] == "random") & (frame["batch"] == 32)]
    means = own.groupby("visual_tokens_kept")["ttft_s"].mean().tolist()
    assert means == sorted(means)
