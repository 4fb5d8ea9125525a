"""Published figures: the project's copy is complete, and rules reproduce what they claim."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from costmodel import estimate
from costmodel.conventions import load_convention
from costmodel.errors import UnknownNameError
from costmodel.reproduction import (
    Published,
    Reproduction,
    list_papers,
    load_paper,
    published_costs,
    reproduce,
    summary,
)
from costmodel.reproduction.judging import TOLERANCE, rounds_to
from costmodel.reproduction.latencies import entries, load, predict
from costmodel.reproduction.papers.sparsevlm import merged_stages
from costmodel.reproduction.shapes import llm_of, staged


@pytest.fixture(scope="module")
def rows() -> tuple[Reproduction, ...]:
    return reproduce("all")


def _of(rows: tuple[Reproduction, ...], paper: str, kind: str = "formula") -> list[Reproduction]:
    return [row for row in rows if (row.published.paper, row.published.kind) == (paper, kind)]


def _missed(rows: list[Reproduction]) -> list[tuple[str, str]]:
    return [(row.published.metric, row.published.printed) for row in rows if not row.rounds]


def test_copy_holds_every_listed_figure(shared_dir: Path) -> None:
    path = shared_dir / "published" / "cost_published.csv"
    if not path.exists():
        pytest.skip("no list of published figures")
    with path.open(encoding="utf-8", newline="") as file:
        listed = Counter(
            (row["method"], row["model"], row["tokens"], row["value"])
            for row in csv.DictReader(file)
        )
    own = Counter(
        (row.method, row.model, "" if row.tokens is None else str(row.tokens), row.printed)
        for row in published_costs()
    )

    def plain(counts: Counter[tuple[str, str, str, str]]) -> Counter[tuple[str, str, str, str]]:
        found: Counter[tuple[str, str, str, str]] = Counter()
        for (method, model, tokens, value), times in counts.items():
            number = value if ":" in value else f"{float(value):g}"
            found[method, model, f"{float(tokens):g}" if tokens else "", number] += times
        return found

    assert plain(own) == plain(listed)


def test_at_least_85_percent_of_computed_figures(rows: tuple[Reproduction, ...]) -> None:
    found = summary(rows)
    assert found.formula == 94
    assert found.reproduced / found.formula >= 0.85
    assert found.formula + found.measured + found.other == len(published_costs()) == 215


def test_m3_rounds_in_17_of_20_cells(rows: tuple[Reproduction, ...]) -> None:
    cells = _of(rows, "m3")
    assert len(cells) == 20
    assert _missed(cells) == [
        ("FLOPs", "2.2"), ("prefill time", "19.5"), ("storing activation", "0.7"),
    ]  # fmt: skip
    assert {row.published.tokens for row in cells if not row.rounds} == {144}
    assert all("144 tokens" in row.reason for row in cells if not row.rounds)


def test_prumerge_misses_one_cell(rows: tuple[Reproduction, ...]) -> None:
    cells = _of(rows, "prumerge")
    assert len(cells) == 16
    assert _missed(cells) == [("FLOPs", "0.28")]
    assert "quarter" in next(row.reason for row in cells if not row.rounds)


def test_every_other_paper_follows_its_rule(rows: tuple[Reproduction, ...]) -> None:
    for paper in ("pyramiddrop", "dymu", "stf"):
        assert all(row.verdict == "reproduced" for row in _of(rows, paper)), paper
    differing = [row.published for row in rows if row.verdict == "differs"]
    assert Counter(row.paper for row in differing) == {
        "fastv": 7, "m3": 2, "prumerge": 1,
    }  # fmt: skip


def test_verdicts_are_what_they_say(rows: tuple[Reproduction, ...]) -> None:
    for row in rows:
        theirs = row.published
        if row.verdict == "reproduced":
            assert row.ours is not None
            assert row.rounds or abs(row.ours / theirs.value - 1) <= TOLERANCE
        elif row.verdict == "differs":
            assert not row.rounds
            assert theirs.kind == "formula"
            # A reason of its own, beyond the size of the difference.
            assert row.ours is None or "; " in row.reason
        assert "\n" not in row.reason
        assert row.reason or row.rounds
        assert (row.verdict == "measured") == (theirs.kind == "measured")
        assert (row.verdict == "not a cost quantity") == (theirs.kind == "other")


def test_measured_latencies_have_a_prediction_with_its_band(
    rows: tuple[Reproduction, ...],
) -> None:
    """The rows of the page of published latencies, and no others."""
    timed = [row for row in rows if row.band is not None and row.published.unit in {"ms", "s"}]
    assert len(timed) == sum(len(table["rows"]) for table in load()["tables"])
    for row in timed:
        assert row.band is not None
        assert row.ours is not None
        assert row.band[0] < row.ours < row.band[1]
        assert row.inside == (row.band[0] <= row.published.value <= row.band[1])
    whole = [row for row in rows if row.published.metric == "total time"]
    assert whole
    assert all(row.ours is None for row in whole)


def test_prediction_is_that_of_the_page() -> None:
    (first, *_) = [row for row in reproduce("visionzip") if row.band is not None]
    table = next(table for table in load()["tables"] if table["paper"] == "visionzip")
    ours = predict(entries(table)[0], "eager")
    assert (first.ours, first.band) == (ours.time_ms, ours.bands_ms["any_stack"])


def test_seconds_and_milliseconds_agree() -> None:
    """FastV, table 4, is in seconds; the same request in ms on the page of latencies."""
    row = next(row for row in reproduce("fastv") if row.published.printed == "0.344")
    table = next(t for t in load()["tables"] if t["key"] == "FastV Table 4")
    assert row.ours == pytest.approx(predict(entries(table)[0], "eager").time_ms / 1e3)


@pytest.mark.parametrize(
    ("printed", "value", "expected"),
    [("2.2", 2.25, True), ("2.2", 2.26, False), ("19", 18.5, True), ("19", 18.49, False),
     ("0.07", 0.0651, True), ("1.70", 1.706, False)],
)  # fmt: skip
def test_rounding(printed: str, value: float, expected: bool) -> None:
    row = Published("", "", "", "", None, "", "", "", printed, "formula")
    assert rounds_to(value, row) is expected


@pytest.mark.parametrize(("budget", "mean"), [(192, 206), (128, 145), (64, 82)])
def test_sparsevlm_tokens_with_the_merged_ones(budget: int, mean: int) -> None:
    """The averages its repository states for its lists, merges included."""
    runs = staged(llm_of("7B"), (3, 7, 16), merged_stages(budget))
    assert sum(run.layers * run.tokens for run in runs) / 32 == pytest.approx(mean, abs=0.6)


@pytest.mark.parametrize("name", list_papers())
def test_papers_are_documented_and_used(name: str) -> None:
    paper = load_paper(name)
    own = [row for row in published_costs() if row.paper == name]
    assert paper.name == name
    assert paper.title
    assert own
    assert all(row.url.startswith("https://") for row in own)
    assert bool(paper.rule) == any(row.kind == "formula" for row in own)
    assert len(reproduce(name)) == len(own)


def test_every_figure_has_a_paper() -> None:
    assert {row.paper for row in published_costs()} == set(list_papers())


def test_unknown_paper() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean fastv"):
        reproduce("fasv")


def test_no_prompt_of_qwen_vl_chat_fits_all_its_rows() -> None:
    """What the reason of its rows claims, of the whole row in G and the others in percent."""
    text = llm_of("QwenVL-Chat-7B")
    count = load_convention("mac-2mlp")
    rows = [row for row in published_costs() if row.model == "QwenVL-Chat-7B"]
    (whole,) = [row for row in rows if row.method == "Vanilla" and row.unit == "G"]
    percents = {
        float(row.method[-4:-2]) / 100: row
        for row in rows
        if row.unit == "%" and row.method != "Vanilla"
    }
    assert len(percents) == 3
    tried = 0
    for length in range(430, 460):
        full = count.flops(text, staged(text, (2,), (length, length)))
        if abs(full / 32e9 / whole.value - 1) > TOLERANCE:
            continue
        tried += 1
        for others in range(length):
            visual = length - others
            shares = (
                (row, count.flops(text, staged(text, (2,), (visual, visual * (1 - r)), others)))
                for r, row in percents.items()
            )
            assert not all(rounds_to(100 * found / full, row) for row, found in shares)
    assert tried > 5


@pytest.mark.parametrize("model", ["LLaVA-1.5-7B", "QwenVL-Chat-7B"])
def test_fastv_prints_whole_percents_of_its_uncompressed_row(model: str) -> None:
    """The rule of its FLOPs column, on the printed figures alone."""
    cells = {
        (row.method, row.unit): row
        for row in published_costs()
        if row.model == model and row.source == "FastV, table 1"
    }
    full = cells["Vanilla", "G"].value
    compressed = [row for (method, unit), row in cells.items() if unit == "G" and "R=" in method]
    assert len(compressed) == (12 if model.startswith("LLaVA") else 3)
    for row in compressed:
        assert rounds_to(cells[row.method, "%"].value / 100 * full, row)


@pytest.mark.parametrize(("budget", "printed"), [(192, 2.11), (128, 1.70), (64, 1.29)])
def test_one_layer_of_all_tokens_gives_fastv_in_sparsevlm(budget: int, printed: float) -> None:
    """Layer by layer, not by equivalent tokens; two layers are too many, none too few."""
    text = llm_of("LLaVA-1.5-7B")
    macs = [
        load_convention("mac-3mlp").flops(text, staged(text, (layer,), (576, budget), 118)) / 1e12
        for layer in (0, 1, 2)
    ]
    assert macs[1] == pytest.approx(printed, abs=0.005)
    assert macs[0] < 0.97 * printed
    assert macs[2] > 1.03 * printed


def test_kernels_that_run_with_the_tower_are_out_of_the_time_with_it() -> None:
    """VisionZip's clock starts behind the tower, in which its own kernels run."""
    table = next(table for table in load()["tables"] if table["paper"] == "visionzip")
    by_method = {entry.label: entry for entry in entries(table)}
    zipped, fastv = by_method["VisionZip"], by_method["FastV"]
    assert fastv.left_out == ("vision_encoder", "projector")
    whole = estimate(
        zipped.model, zipped.gpu, text_tokens=zipped.text_tokens, runtime="eager",
        visual_tokens=zipped.visual_tokens, compress=zipped.compress, attention="eager",
    )  # fmt: skip
    assert whole.tokens["visual_kept"] == 160
    out = sum(whole.time_s[stage] for stage in (*fastv.left_out, "compression"))
    assert predict(zipped, "eager").time_ms == pytest.approx(1e3 * (whole.time_s["ttft"] - out))
