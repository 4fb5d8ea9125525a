"""The commands plot, figure and trace, as they are installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from costmodel.report.figures import missing_for_images

Run = Callable[..., Result]
needs_browser = pytest.mark.skipif(
    bool(missing_for_images()), reason=f"images need {missing_for_images()}"
)


@pytest.fixture
def table(tmp_path: Path) -> str:
    pytest.importorskip("pyarrow")
    path = tmp_path / "r.csv"
    rows = {
        "method": ["none", "random"], "visual_tokens_kept": [576, 64], "text_tokens": [64, 64],
        "ttft_s": [0.05, 0.02], "flops_total_flop": [9e12, 2e12],
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


def test_a_plot_is_a_page_that_needs_no_network(run: Run, table: str, tmp_path: Path) -> None:
    out = tmp_path / "p.html"
    result = run("plot", table, "-o", str(out))
    assert result.exit_code == 0, result.output
    page = out.read_text(encoding="utf-8")
    assert "time to first token [ms]" in page
    assert "<script src=" not in page


@needs_browser
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_is_an_image(run: Run, table: str, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"p.{ending}"
    result = run("plot", table, "--kind", "speedup-flops", "-o", str(out))
    assert result.exit_code == 0, result.output
    start = {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[ending]
    assert out.read_bytes().startswith(start)


def test_images_need_a_browser(
    run: Run, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    monkeypatch.setattr("costmodel.report.chart_drawing.draw", lambda _: pytest.fail("ran"))
    result = run("plot", table, "-o", str(tmp_path / "p.png"))
    assert result.exit_code == 2
    assert "chromium" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "pie"], "stages"),
        (["--kind", "stages"], "vision_encoder_s"),
        (["--kind", "ttft-tokens", "--x", "batch"], "scatter"),
        (["--x", "nothing"], "nothing"),
        (["--where", "gpu"], "batch<=8"),
    ],
)
def test_what_cannot_be_plotted_is_said(
    run: Run, table: str, tmp_path: Path, words: list[str], message: str
) -> None:
    result = run("plot", table, "-o", str(tmp_path / "p.html"), *words)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "p.html").exists()


def test_a_figure_of_a_case(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "f.html"
    words = ["figure", "stages", "llava-1.5-7b", "--gpu", "a40", "--methods", "random,cluster"]
    result = run(*words, "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "cluster:k=64" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["figure", "pie", "llava-1.5-7b", "--gpu", "a40"], "stages"),
        (["figure", "stages"], "model"),
        (["figure", "stages", "llava-1.5-7b"], "gpu"),
        (["figure", "calibration-residuals", "llava-1.5-7b"], "no model"),
        (["figure", "calibration-residuals"], "measured"),
        (["figure", "stages", "llava-1.5-7b", "--gpu", "a40", "--methods", "magic"], "magic"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    run: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    result = run(*words, "-o", str(tmp_path / "f.html"))
    assert result.exit_code == 2
    assert message in result.output


def test_a_trace_is_written(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    result = run("trace", "llava-1.5-7b", "--gpu", "a40", "-o", str(out))
    assert result.exit_code == 0, result.output
    trace = json.loads(out.read_text(encoding="utf-8"))
    assert any(event["name"].startswith("layer 31: ") for event in trace["traceEvents"])


def test_a_trace_ends_in_json(run: Run, tmp_path: Path) -> None:
    result = run("trace", "llava-1.5-7b", "--gpu", "a40", "-o", str(tmp_path / "t.html"))
    assert result.exit_code == 2
    assert ".json" in result.output
