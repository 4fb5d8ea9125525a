"""Pictures say what the library computes, and state what they hold and leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import costmodel
from costmodel.charts import BarChart, HeatMap, LineChart, Panels
from costmodel.errors import InputError, SpecError, UnknownNameError
from costmodel.report.picture_kinds import list_kinds, picture_of_case
from costmodel.report.pictures.pareto import front
from costmodel.report.result_pictures import picture_of_results
from costmodel.report.result_table import read_results

pytest.importorskip("pyarrow")

MODEL, GPU = "llava-1.5-7b", "a100-80gb-sxm"


@pytest.fixture(scope="module")
def case() -> costmodel.case.Case:
    return costmodel.prepare(MODEL, GPU, text_tokens=64)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Results as of a sweep, with numbers one can check by hand."""
    frame = pd.DataFrame(
        [
            (MODEL, gpu, method, batch, 64, kept, 1e-3 * batch * (4 + kept / 10), kept * 1e10)
            for gpu in (GPU, "rtx-a6000")
            for method, tokens in (("none", [576]), ("random", [64, 128]), ("cluster", [64, 128]))
            for kept in tokens
            for batch in (1, 2)
        ],
        columns=[
            "model", "gpu", "method", "batch", "text_tokens", "visual_tokens_kept", "ttft_s",
            "flops_total_flop",
        ],
    )  # fmt: skip
    stages = ("vision_encoder", "projector", "compression", "llm_prefill", "lm_head")
    shares = dict(zip(stages, (0.1, 0.02, 0.03, 0.8, 0.05), strict=True))
    frame = frame.assign(**{f"{name}_s": frame["ttft_s"] * s for name, s in shares.items()})
    return frame.assign(
        host_overhead_s=0.0,
        kv_cache_bytes=frame["visual_tokens_kept"] * 5e5,
        memory_total_bytes=14e9 + frame["batch"] * 1e9,
    )


@pytest.fixture
def table(rows: pd.DataFrame, tmp_path: Path) -> str:
    path = tmp_path / "results.parquet"
    rows.to_parquet(path, index=False)
    return str(path)


def test_each_figure_of_the_contract_is_there() -> None:
    assert set(list_kinds("case")) == {
        "prefill-tokens", "stages", "savings-retention", "speedup-flops", "overhead-heatmap",
        "insertion-heatmap", "memory-batch", "pareto", "calibration-residuals",
    }  # fmt: skip
    assert set(list_kinds("results")) == {
        "ttft-tokens", "stages", "savings-retention", "speedup-flops", "memory-batch", "pareto",
        "scatter",
    }  # fmt: skip
    assert all(kind.summary.endswith(".") for kind in list_kinds().values())


def test_prefill_against_tokens_agrees_with_estimates(case: costmodel.case.Case) -> None:
    chart = picture_of_case("prefill-tokens", case)
    assert isinstance(chart, LineChart)
    wide, narrow = (s for s in chart.series if s.name == "time to first token")
    index = len(wide.x) // 2
    kept = int(wide.x[index]) - 64
    grid = costmodel.evaluate_grid(case, visual_tokens=kept)
    assert wide.y[index] == pytest.approx(1e3 * float(grid.time_s["ttft"]))
    assert all(w <= n for w, n in zip(wide.low, narrow.low, strict=True))
    floor = next(s for s in chart.series if s.name == "weights read once")
    ideal = next(s for s in chart.series if s.name == "datasheet roofline")
    assert floor.y[0] < min(ideal.y) < min(wide.y)
    # 6.6 G parameters of the decoder and 0.13 G of the head in two bytes, at 2039 GB/s.
    assert floor.y[0] == pytest.approx(6.48, rel=0.01)
    assert any(s.name.startswith("published") for s in chart.series)


def test_stages_of_a_bar_sum_to_the_time_to_the_first_token(case: costmodel.case.Case) -> None:
    chart = picture_of_case("stages", case, methods=["random", "cluster"])
    assert isinstance(chart, BarChart)
    totals = dict(
        zip(
            chart.categories, (sum(v) for v in zip(*chart.parts.values(), strict=True)), strict=True
        )
    )
    for label, total in totals.items():
        result = costmodel.estimate(MODEL, GPU, text_tokens=64, compress=label)
        assert total == pytest.approx(1e3 * result.time_s["ttft"])
    assert list(totals.values()) == sorted(totals.values())


def test_the_heat_map_of_clustering_agrees_with_estimates(case: costmodel.case.Case) -> None:
    picture = picture_of_case("overhead-heatmap", case)
    assert isinstance(picture, Panels)
    chart = next(c for c in picture.charts if "impl=fused" in c.title)
    assert isinstance(chart, HeatMap)
    row, column = chart.rows.index(20.0), chart.columns.index(64.0)
    result = costmodel.estimate(
        MODEL, GPU, text_tokens=64, compress="cluster:k=64,iterations=20,impl=fused"
    )
    assert chart.values[row][column] == pytest.approx(1e3 * result.savings["ttft_s"])
    assert chart.level == 0.0


def test_the_heat_map_of_places_agrees_with_estimates(case: costmodel.case.Case) -> None:
    chart = picture_of_case("insertion-heatmap", case)
    assert isinstance(chart, HeatMap)
    row = chart.rows.index("LLM layer 8")
    result = costmodel.estimate(MODEL, GPU, text_tokens=64, compress="fastv:layer=8,k=63")
    before = costmodel.estimate(MODEL, GPU, text_tokens=64)
    saved = 100 * result.savings["ttft_s"] / before.time_s["ttft"]
    assert chart.values[row][2] == pytest.approx(saved)
    assert len({len(values) for values in chart.values}) == 1


def test_memory_against_batch_ends_beyond_the_largest_that_fits(
    case: costmodel.case.Case,
) -> None:
    chart = picture_of_case("memory-batch", case)
    assert isinstance(chart, BarChart)
    result = costmodel.estimate(MODEL, GPU, text_tokens=64)
    largest = result.memory_bytes["largest_batch"]
    (capacity,) = (chart.levels or {}).values()
    totals = [sum(v) for v in zip(*chart.parts.values(), strict=True)]
    fitting = [total <= capacity for total in totals]
    assert chart.categories[fitting.index(False) - 1] == f"{largest:,}"
    assert fitting == sorted(fitting, reverse=True)


def test_scores_against_cost_are_those_of_the_sources(case: costmodel.case.Case) -> None:
    picture = picture_of_case("pareto", case, methods=["fastv", "divprune"])
    assert isinstance(picture, Panels)
    left = picture.charts[0]
    assert isinstance(left, LineChart)
    names = [s.name for s in left.series]
    assert names == ["not beaten in both", *(f"{n} visual tokens" for n in (576, 192, 128, 64))]
    points = [s for s in left.series if s.low]
    for series in points:
        for low, score, high in zip(series.low, series.y, series.high, strict=True):
            assert low <= score <= high


def test_the_front_holds_what_nothing_beats() -> None:
    random = np.random.default_rng(0)
    cost, score = random.uniform(1, 2, 60), random.uniform(0, 1, 60)
    best = front(cost, score)
    for i in range(60):
        beaten = any(cost[j] < cost[i] / 1.01 and score[j] > score[i] for j in range(60))
        assert not (best[i] and beaten)
    assert best[np.argmin(cost)] or (score[best & (cost < 1.006 * cost.min())] > 0).any()
    assert best[np.argmax(score)]


def test_a_text_only_model_has_no_figure_of_compression() -> None:
    case = costmodel.prepare("llama-2-7b", GPU, text_tokens=64)
    for name in ("stages", "savings-retention", "overhead-heatmap", "insertion-heatmap", "pareto"):
        with pytest.raises(costmodel.CostModelError, match="visual tokens"):
            picture_of_case(name, case)
    assert picture_of_case("prefill-tokens", case).title


def test_savings_of_results_are_against_none(table: str) -> None:
    picture = picture_of_results(table, "savings-retention")
    assert isinstance(picture, Panels)
    flops, ttft, _ = picture.charts
    assert isinstance(flops, LineChart)
    assert isinstance(ttft, LineChart)
    assert flops.series[0].x == pytest.approx((100 * 64 / 576, 100 * 128 / 576))
    assert flops.series[0].y[0] == pytest.approx(100 * (1 - 64 / 576))
    assert ttft.series[0].y[0] == pytest.approx(100 * (1 - 10.4 / 61.6))
    assert "batch = 1" in picture.note
    assert "first of several: gpu, batch" in picture.note


def test_conditions_choose_rows(table: str) -> None:
    picture = picture_of_results(table, "stages", where=["gpu=rtx-a6000", "batch=2"])
    assert isinstance(picture, BarChart)
    assert len(picture.categories) == 5
    assert sum(part[-1] for part in picture.parts.values()) == pytest.approx(2 * 61.6)
    assert "gpu = rtx-a6000" in picture.note
    found = read_results(table, ["ttft_s"], None, ["batch>=2", "method!=none"])
    assert set(found.frame["batch"]) == {2}
    assert set(found.frame["method"]) == {"random", "cluster"}


def test_csv_and_parquet_are_the_same(rows: pd.DataFrame, table: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    rows.to_csv(path, index=False)
    for kind in list_kinds("results"):
        if kind != "pareto":
            assert picture_of_results(str(path), kind) == picture_of_results(table, kind)


def test_thinning_is_stated(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    pd.concat([rows] * 2500).to_parquet(path, index=False)
    picture = picture_of_results(str(path), "scatter")
    assert isinstance(picture, LineChart)
    assert sum(len(s.x) for s in picture.series) <= 20_000
    assert "every 3rd of 50,000 rows" in picture.note


def test_rows_without_numbers_are_left_out_and_counted(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "gaps.parquet"
    rows.assign(ttft_s=rows["ttft_s"].where(rows.index > 3)).to_parquet(path, index=False)
    assert "4 rows without numbers left out" in picture_of_results(str(path), "scatter").note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no table"),
        ("a.csv", "gpu,ttft_s\n", "no column"),
        ("a.csv", "method,visual_tokens_kept,text_tokens,ttft_s\n", "no rows"),
        ("a.csv", "method,visual_tokens_kept,text_tokens,ttft_s\nnone,1,1,soon\n", "no numbers"),
        ("a.csv", "method,visual_tokens_kept,text_tokens,ttft_s\nnone,1,1,nan\n", "numbers"),
        ("a.csv", 'a,b\n"1,2\n3', "no "),
        ("a.parquet", "PAR1 and nothing", "no table"),
        ("a.txt", "x", "parquet"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises((SpecError, InputError), match=message):
        picture_of_results(str(tmp_path / name))


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        picture_of_results(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("where", "error"),
    [("gpu", InputError), ("size=1", UnknownNameError), ("batch=one", InputError),
     ("batch<1,2", InputError), ("batch>99", InputError)],
)  # fmt: skip
def test_bad_conditions(table: str, where: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        picture_of_results(table, where=[where])


def test_savings_need_a_baseline(table: str) -> None:
    with pytest.raises(InputError, match="none"):
        picture_of_results(table, "savings-retention", where=["method!=none"])
