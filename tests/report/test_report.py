"""Records, tables, figures and files."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from costmodel.errors import InputError, UnknownNameError
from costmodel.estimation import Estimate, estimate, estimate_case, prepare
from costmodel.files import check_output, write_bytes, write_text
from costmodel.report import comparison, formulas, records, stages, tables, text
from costmodel.report.figures import check_figure_output, write_figure
from costmodel.report.roofline import roofline_figure


@pytest.fixture(scope="module")
def result() -> Estimate:
    return estimate(
        "llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress="cluster:k=64", time_model="ideal"
    )


def test_stages_sum_to_the_total(result: Estimate) -> None:
    costs = {row.stage: row for row in stages.stage_costs(result)}
    parts = [row for row in costs.values() if row.part_of == "total"]
    assert math.isclose(sum(row.time_s for row in parts), result.time_s["ttft"])
    assert math.isclose(sum(row.share for row in parts), 1.0)
    assert sum(row.flops for row in parts) == result.flops["total"]
    assert costs["llm_attention"].flops == result.flops["llm_attention"]
    assert costs["llm_linear"].bytes_moved == result.bytes_moved["llm_linear"]
    assert costs["total"].bound_by == "memory"
    assert costs["host_overhead"].bound_by == ""


def test_record_survives_json(result: Estimate) -> None:
    record = records.estimate_record(result, explain=True)
    assert json.loads(records.to_json(record)) == record


def test_json_refuses_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.to_json({"time_s": math.nan})


def test_empty_csv_is_empty() -> None:
    assert records.to_csv([]).strip() == ""


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_names_are_whole_at_any_width(result: Estimate, width: int) -> None:
    shown = text.render(tables.estimate_tables(result, explain=True), width=width)
    assert "…" not in shown
    for op in (*result.ops, *result.ops_decode):
        assert op.name in shown


def test_main_table_needs_80_columns(result: Estimate) -> None:
    shown = text.render(tables.estimate_tables(result), width=80)
    assert max(map(len, shown.splitlines())) <= 80


def test_colour_only_where_asked(result: Estimate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    parts = tables.estimate_tables(result)
    assert "\x1b[" in text.render(parts, colour=True)
    assert "\x1b[" not in text.render(parts)


def test_text_in_brackets_is_not_markup() -> None:
    assert text.render([text.facts([("[bold]", "[/x] [red]")])]) == "[bold]  [/x] [red]\n"


def test_bands_are_shown_where_there_are_some(result: Estimate) -> None:
    from dataclasses import replace

    band: dict[str, Any] = {
        "ttft": {"same_stack": [0.01, 0.02], "any_stack": None},
        "tpot": {"same_stack": None, "any_stack": [0.003, 0.004]},
        "level": 0.9,
    }
    shown = text.render(tables.estimate_tables(replace(result, interval_s=band)))
    assert "TTFT band  90%: 10.0 ms to 20.0 ms (same software)" in shown
    assert "TPOT band  90%: 3.00 ms to 4.00 ms (any lab and software)" in shown


def test_parts_of_the_memory_that_are_never_there_together_say_so() -> None:
    few: dict[str, Any] = {"text_tokens": 8, "visual_tokens": 40, "batch": 16}
    for runtime, said in (("eager", True), ("cuda-graph", False)):
        found = estimate("llava-1.5-7b", "a100-80gb-sxm", runtime=runtime, **few)
        memory = found.memory_bytes
        parts = memory["weights"] + memory["kv_cache"] + memory["activations_peak"]
        assert (parts > memory["total"] * 1.001) == said
        shown = " ".join(text.render(tables.estimate_tables(found)).split())
        assert ("vision.mlp_activation, before there is a cache)" in shown) == said


def test_comparison_without_an_outcome_is_empty() -> None:
    assert comparison.comparison_rows([]) == []


def test_formulas_of_a_stage_that_is_absent() -> None:
    case = prepare("llama-2-7b", "a40", text_tokens=64)
    with pytest.raises(UnknownNameError, match="Known: llm, lm_head"):
        formulas.formulas(case, stage="projector")


def test_formulas_follow_relations(result: Estimate) -> None:
    case = prepare("llava-1.5-7b", "a40", text_tokens=64, compress="cluster:k=64")
    found = formulas.formulas(case, stage="llm")
    values = {symbol.name: value for symbol, value in found.values.items()}
    assert (values["s"], values["V"], values["T"], values["k"]) == (128, 64, 64, 64)
    used = set().union(*(op.free_symbols for op in found.ops))
    assert {symbol.name for symbol in used} <= set(values)


def _figure(**options: Any) -> tuple[Any, Estimate]:
    case = prepare("llava-1.5-7b", "h100-sxm", text_tokens=64, **options)
    found = estimate_case(case)
    return roofline_figure(case, found), found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compress": "cluster:k=64", "runtime": "eager", "attention": "eager"},
        {"dtype": "fp8"},
        {"tp": 2, "visual_tokens": 0},
    ],
)
def test_no_operator_is_above_the_roof(options: dict[str, Any]) -> None:
    figure, found = _figure(**options)
    markers = [t for t in figure.data if t.mode == "markers" and t.text is not None]
    shown = sum(len(trace.x) for trace in markers)
    assert shown == sum(op.flops > 0 for op in (*found.ops, *found.ops_decode))
    peak, bandwidth = 1979e12, 3350e9
    for trace in markers:
        for intensity, rate in zip(trace.x, trace.y, strict=True):
            assert rate <= min(peak, intensity * bandwidth) * (1 + 1e-9)


def test_markers_say_what_they_are() -> None:
    figure, _ = _figure(compress="cluster:k=64")
    hovers = [hover for trace in figure.data for hover in trace.text or ()]
    (qkv,) = [h for h in hovers if "<b>decoder.qkv_proj</b> (prefill" in h]
    for part in ("m=128 n=12288 k=4096", "2*b*d*s*(2*D*G + D*H)", "bound by memory", "FLOP/B"):
        assert part in qkv
    groups = {trace.legendgroup for trace in figure.data}
    assert {"prefill", "one decode step"} <= groups
    colours = {trace.marker.color for trace in figure.data if trace.legendgroup == "prefill"}
    assert len(colours) == 5


def test_figure_is_written_as_one_file(tmp_path: Path) -> None:
    figure, _ = _figure()
    write_figure(figure, tmp_path / "a.html")
    write_figure(figure, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("name", ["a.txt", "a", "a.html.gz"])
def test_figures_have_known_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.html"):
        check_figure_output(tmp_path / name)


def test_writing_replaces_and_keeps_the_mode(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    target.chmod(0o640)
    write_text(target, "néw")
    assert target.read_text(encoding="utf-8") == "néw"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.skipif(os.name != "posix", reason="links and devices of POSIX")
def test_writing_follows_links_and_spares_devices(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_bytes(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"
    write_bytes("/dev/null", b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_failed_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.write_text("old")

    def fail(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("path", ["", ".", "no/such/out", "/", "x" * 300])
def test_paths_that_cannot_be_written(path: str) -> None:
    with pytest.raises(InputError, match="output"):
        check_output(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="may not"):
        check_output(tmp_path / "out")
