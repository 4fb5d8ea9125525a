"""Every study runs, its answer says what its tables hold, and tables agree with the facade."""

from __future__ import annotations

import importlib.util
import math
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import costmodel
from costmodel.catalog.hardware import load_gpu
from costmodel.charts import Panels
from costmodel.results import Estimate
from costmodel.studies.running import Outcome, run_study
from costmodel.studies.study import Finding, list_studies

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL, A100, A6000 = "llava-1.5-7b", "a100-80gb-sxm", "rtx-a6000"
SAMPLED = (
    "clustering-overhead", "end-to-end", "flops-versus-latency", "insertion", "retention",
    "saliency-cost", "sensitivity",
)  # fmt: skip
NUMBER = re.compile(r"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)(?= (?:ms|times|%))")


@cache
def outcome(name: str) -> Outcome:
    """Run a study once for all tests."""
    return run_study(name)


def finding(name: str) -> Finding:
    found = outcome(name).finding
    assert found is not None
    return found


def records(name: str, number: int = 0) -> list[dict[str, Any]]:
    table = finding(name).tables[number]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def pick(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row


def ask(gpu: str = A100, **options: Any) -> Estimate:
    return costmodel.estimate(MODEL, gpu, **{"text_tokens": 64, **options})


def ttft_ms(gpu: str, **options: Any) -> float:
    return 1e3 * ask(gpu, **options).time_s["ttft"]


@pytest.mark.parametrize("name", list_studies())
def test_runs_and_is_complete(name: str) -> None:
    found, study = finding(name), outcome(name).study
    assert study.title
    assert study.question.endswith("?")
    assert study.method.endswith(".")
    assert found.answer.endswith(".")
    assert found.uncertainty.strip()
    assert found.pictures
    assert found.settings
    for table in found.tables:
        assert table.title
        assert table.rows
        assert len(set(table.columns)) == len(table.columns)
        for row in table.rows:
            assert len(row) == len(table.columns)
            for value in row:
                assert value is None or isinstance(value, str | int | float), (table.title, value)
                assert not isinstance(value, float) or math.isfinite(value), (table.title, row)
    for picture in found.pictures:
        assert picture.title
        assert all(chart.title for chart in getattr(picture, "charts", (picture,)))
        assert isinstance(picture, Panels) or picture.title


def numbers_of(text: str) -> list[str]:
    return [found.replace(",", "") for found in NUMBER.findall(text)]


@pytest.mark.parametrize("name", SAMPLED)
def test_answer_has_the_numbers_of_the_tables(name: str) -> None:
    """Numbers with a unit are cells as printed, or differences and ratios of two."""
    cells = {
        abs(value)
        for table in finding(name).tables
        for row in table.rows
        for value in row
        if isinstance(value, int | float)
    }
    told = numbers_of(finding(name).answer)
    assert len(told) >= 8
    unknown = [
        text
        for text in told
        if not any(
            f"{value:.{len(text.partition('.')[2])}f}" == text or f"{value:.3g}" == text
            for value in cells
        )
    ]
    assert len(unknown) <= 0.2 * len(told), unknown


@pytest.mark.parametrize("name", SAMPLED)
def test_answer_of_another_gpu_does_not_speak_of_these(name: str) -> None:
    other = run_study(name, {"gpus": ("l40s",)}).finding
    assert other is not None
    assert "l40s" in other.answer
    for gpu in (A100, A6000, "h100"):
        assert gpu not in other.answer
    assert "l40s" in other.uncertainty
    assert other.answer != finding(name).answer


@pytest.mark.parametrize("name", SAMPLED)
def test_runs_for_a_model_whose_projector_joins_neighbours(name: str) -> None:
    found = run_study(name, {"model": "vila-1.5-3b", "gpus": (A100,)}).finding
    assert found is not None
    assert found.settings["model"] == "vila-1.5-3b"
    assert "576" not in found.answer


@pytest.mark.parametrize("name", SAMPLED)
def test_uncertainty_says_what_is_transferred(name: str) -> None:
    text = finding(name).uncertainty
    assert "transferred from the A40" in text
    assert "measured none of these GPUs" in text


@pytest.mark.parametrize(
    ("gpu", "impl", "position", "batch", "k"),
    [
        (A100, "eager", "after projector", 1, 64),
        (A6000, "fused", "after projector", 8, 144),
        ("h100-sxm", "compiled", "after projector", 8, 20),
        ("a100-40gb-sxm", "sklearn", "before projector", 1, 144),
    ],
)
def test_overhead_is_the_difference_of_estimates(
    gpu: str, impl: str, position: str, batch: int, k: int
) -> None:
    row = pick(
        records("clustering-overhead"), gpu=gpu, implementation=impl, position=position,
        batch=batch, k=k,
    )  # fmt: skip
    place = f"position={position.replace(' ', '_')}"
    clustered = ask(gpu, batch=batch, compress=f"cluster:k={k},impl={impl},check=false,{place}")
    free = ask(gpu, batch=batch, compress=f"spatial:k={k},{place}")
    assert free.baseline is not None
    overhead = 1e3 * (clustered.time_s["ttft"] - free.time_s["ttft"])
    saved = 1e3 * (free.baseline.time_s["ttft"] - free.time_s["ttft"])
    assert row["overhead_ms"] == pytest.approx(overhead, rel=1e-9)
    assert row["saved_ms"] == pytest.approx(saved, rel=1e-9)
    assert row["share_pct"] == pytest.approx(100 * overhead / saved, rel=1e-9)
    assert row["overhead_low_ms"] <= row["overhead_ms"] <= row["overhead_high_ms"]
    assert row["saved_low_ms"] < row["saved_ms"] < row["saved_high_ms"]
    sure = row["overhead_high_ms"] < row["saved_low_ms"]
    never = row["overhead_low_ms"] > row["saved_high_ms"]
    assert row["verdict"] == ("pays" if sure else "loses" if never else "open")


@pytest.mark.parametrize("impl", ["eager", "fused"])
def test_break_even_changes_the_sign(impl: str) -> None:
    """One step of k, or one of the iterations tried, further clustering no longer pays."""
    row = pick(
        records("clustering-overhead", 1), gpu=A6000, implementation=impl,
        position="after projector", batch=1,
    )  # fmt: skip
    plain = ttft_ms(A6000)

    def clustered(k: int, iterations: int) -> float:
        text = f"cluster:k={k},iterations={iterations},impl={impl},check=false"
        return ttft_ms(A6000, compress=text)

    k, most = row["k_that_pays_up_to"], row["iterations_that_pay_up_to"]
    assert clustered(k, 10) < plain <= clustered(k + 4, 10)
    assert clustered(64, most) < plain <= clustered(64, math.ceil(1.1 * most))


@pytest.mark.parametrize(("gpu", "kept"), [(A100, 192), (A6000, 32), (A6000, 576)])
def test_end_to_end_is_the_estimate(gpu: str, kept: int) -> None:
    method = "spatial" if kept < 576 else "none"
    row = pick(records("end-to-end"), gpu=gpu, method=method, kept_tokens=kept)
    found = ask(gpu, compress=f"spatial:k={kept}" if kept < 576 else None)
    for stage in ("vision_encoder", "projector", "compression", "llm_prefill", "lm_head"):
        assert row[f"{stage}_ms"] == pytest.approx(1e3 * found.time_s[stage], rel=1e-9)
    assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"], rel=1e-9)
    for kind, name in (("any_stack", "any"), ("same_stack", "same")):
        band = [row[f"ttft_{name}_{end}_ms"] for end in ("low", "high")]
        expected = [1e3 * bound for bound in found.interval_s["ttft"][kind]]
        assert band == pytest.approx(expected, rel=1e-9)
    assert row["ttft_ratio"] == pytest.approx(found.savings["ttft_s_ratio"], rel=1e-9)
    assert row["flops_ratio"] == pytest.approx(found.savings["flops_ratio"], rel=1e-9)


def test_retention_is_the_estimate() -> None:
    row = pick(records("retention"), gpu=A6000, kept_tokens=115)
    found = ask(A6000, compress="spatial:k=115")
    assert row["flops_tflop"] == pytest.approx(found.flops["total"] / 1e12, rel=1e-9)
    assert row["bytes_moved_gb"] == pytest.approx(found.bytes_moved["total"] / 1e9, rel=1e-9)
    assert row["kv_cache_mb"] == pytest.approx(found.memory_bytes["kv_cache"] / 1e6, rel=1e-9)
    assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"], rel=1e-9)
    assert row["bytes_moved_ratio"] == pytest.approx(found.savings["bytes_moved_ratio"], rel=1e-9)
    # 300 W, and the share and the overhead that LLaMA's report implies for 82432 A100-hours.
    per_watt = 36.27e6 * 3600 / (82432 * 3600 * 400)
    assert row["energy_j"] == pytest.approx(300 * per_watt * row["ttft_ms"] / 1e3, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "visual", "tflop", "milliseconds"),
    [(A100, 576, 8.18, 28.4), (A100, 58, 1.275, 6.95), (A6000, 576, 8.18, 59.1),
     (A6000, 58, 1.275, 18.4)],
)  # fmt: skip
def test_a_tenth_is_as_llm_viewer_prints_it(
    gpu: str, visual: int, tflop: float, milliseconds: float
) -> None:
    """Output of LLM-Viewer itself for Vicuna-7B in fp16 with 40 text tokens."""
    row = pick(records("retention", 1), gpu=gpu, visual_tokens=visual)
    assert row["viewer_tflop"] == pytest.approx(tflop, rel=1e-3)
    assert row["viewer_ms"] == pytest.approx(milliseconds, rel=3e-3)


def test_nothing_dominates_the_front() -> None:
    rows = records("retention", 2)

    def score(row: dict[str, Any]) -> float:
        return float(row["score_low_pct"] + row["score_high_pct"])

    for row in rows:
        better = [
            other for other in rows
            if other["gpu"] == row["gpu"] and other["ttft_ms"] <= row["ttft_ms"]
            and score(other) >= score(row) and other is not row
        ]  # fmt: skip
        assert row["on_front"] == (not better)
    row = pick(rows, gpu=A100, method="visionzip", tokens=64)
    assert row["ttft_ms"] == pytest.approx(ttft_ms(A100, compress="visionzip:k=64"), rel=1e-9)


@pytest.mark.parametrize(
    ("gpu", "knee", "bandwidth_gb_per_s"),
    [(A100, 153, 2039), ("a100-40gb-sxm", 201, 1555), (A6000, 202, 768), ("v100-sxm", 139, 900)],
)
def test_knee_and_floor(gpu: str, knee: float, bandwidth_gb_per_s: float) -> None:
    """Datasheet peak over bandwidth; every weight of Llama's layers and head is read once."""
    row = pick(records("flops-versus-latency"), gpu=gpu)
    assert row["knee_tokens"] == pytest.approx(knee, abs=0.6)
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    floor = 2 * weights / (bandwidth_gb_per_s * 1e6)
    assert row["weight_read_floor_ms"] == pytest.approx(floor, rel=1e-3)
    assert row["least_language_ms"] > floor


def test_halving_pays_from_the_number_in_the_table() -> None:
    row = pick(records("flops-versus-latency", 1), gpu=A6000, batch=4)
    first = row["halving_pays_from_visual_tokens"]

    def gain(visual: int) -> float:
        whole, half = (
            ttft_ms(A6000, batch=4, compress=f"random:k={k}") for k in (visual, visual // 2)
        )
        return 1 - half / whole

    assert gain(first) > 0.1 > gain(first - 2)


def test_flops_against_time_is_the_estimate() -> None:
    row = pick(records("flops-versus-latency", 2), gpu=A100, batch=4, kept_tokens=64)
    found = ask(A100, batch=4, compress="random:k=64")
    assert found.baseline is not None
    language = ("llm_prefill", "lm_head")
    ratio = sum(found.baseline.flops[s] for s in language) / sum(found.flops[s] for s in language)
    assert row["language_flops_ratio"] == pytest.approx(ratio, rel=1e-9)
    seconds = sum(found.time_s[stage] for stage in language)
    assert row["language_ms"] == pytest.approx(1e3 * seconds, rel=1e-9)


@pytest.mark.parametrize(
    ("layer", "dropped", "left"),
    [(2, 90, 20), (2, 75, 33), (2, 50, 55), (3, 90, 23), (3, 75, 35), (3, 50, 57), (5, 90, 28),
     (5, 75, 40), (5, 50, 60), (0, 75, 29), (0, 50, 52)],
)  # fmt: skip
def test_flops_by_layer_are_those_that_fastv_prints(layer: int, dropped: int, left: int) -> None:
    """FastV, table 1, column FLOPs ratio (arXiv:2403.06764)."""
    row = pick(records("insertion", 1), gpu=A100, layer=layer, dropped_pct=float(dropped))
    assert 100 - row["fastv_count_saved_pct"] == pytest.approx(left, abs=0.51)


@pytest.mark.parametrize(("layer", "variant"), [(8, "least_work"), (3, "public_code")])
def test_dropping_before_a_layer_is_the_estimate(layer: int, variant: str) -> None:
    row = pick(records("insertion", 1), gpu=A6000, layer=layer, dropped_pct=75.0)
    name = {"least_work": "last-row", "public_code": "released"}[variant]
    found = ask(A6000, compress=f"fastv:layer={layer},k=144,variant={name}")
    saved = 100 * (1 - 1 / found.savings["ttft_s_ratio"])
    assert row[f"{variant}_ttft_saved_pct"] == pytest.approx(saved, rel=1e-9)


def test_position_is_the_estimate() -> None:
    row = pick(records("insertion"), gpu=A100, position="in the tower (ToMe)")
    found = ask(A100, compress="tome:kept=64")
    assert found.baseline is not None
    assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"], rel=1e-9)
    change = found.memory_bytes["total"] - found.baseline.memory_bytes["total"]
    assert row["peak_memory_change_mb"] == pytest.approx(change / 1e6, rel=1e-9)


@pytest.mark.parametrize(
    ("form", "compress"),
    [
        ("embeddings, before the LLM", "saliency:k=64"),
        ("attention of layer 8, restart", "saliency:k=64,variant=layer,layer=8,then=restart"),
    ],
)
def test_saliency_is_the_estimate(form: str, compress: str) -> None:
    row = pick(records("saliency-cost"), gpu=A6000, saliency=form, kept_tokens=64)
    time_ms, random_ms = (ttft_ms(A6000, compress=one) for one in (compress, "random:k=64"))
    assert row["ttft_ms"] == pytest.approx(time_ms, rel=1e-9)
    assert row["more_than_random_ms"] == pytest.approx(time_ms - random_ms, rel=1e-6)
    most = row["random_tokens_in_that_time"]
    assert ttft_ms(A6000, compress=f"random:k={most}") <= time_ms * (1 + 1e-9)
    assert ttft_ms(A6000, compress=f"random:k={most + 1}") > time_ms


def test_gain_by_tokens_is_that_of_printed_scores() -> None:
    """ToMe in SparseVLM's table 1, 64 and 128 tokens, in percent of the vanilla row."""
    rows = records("saliency-cost", 1)
    row = pick(rows, source="SparseVLM table 1", method="ToMe", from_tokens=64, to_tokens=128)
    scores = [
        score for score in costmodel.scores.scores_for("tome", MODEL)
        if score.label == row["source"] and not score.is_average
    ]  # fmt: skip
    mean = {
        tokens: sum(s.relative_pct or 0 for s in scores if s.tokens == tokens) / row["benchmarks"]
        for tokens in (64, 128)
    }
    assert row["gain_points"] == pytest.approx(mean[128] - mean[64], rel=1e-9)


def test_sensitivity_starts_from_the_estimate() -> None:
    for quantity in ("memory bandwidth", "compute peak", "launch cost"):
        row = pick(
            records("sensitivity"), gpu=A6000, runtime="eager", quantity=quantity, factor=1.0
        )
        for name, compress in (
            ("plain", None), ("index", "spatial:k=64"),
            ("cluster", "cluster:k=64,impl=eager,check=false"),
        ):  # fmt: skip
            expected = ttft_ms(A6000, runtime="eager", compress=compress)
            assert row[f"{name}_ttft_ms"] == pytest.approx(expected, rel=1e-9)


def test_sensitivity_of_bandwidth_is_that_of_a_changed_card() -> None:
    gpu = load_gpu(A100)
    rate = gpu.memory.bandwidth.model_copy(update={"value": 2 * gpu.memory.bandwidth.value})
    twice = gpu.model_copy(update={"memory": gpu.memory.model_copy(update={"bandwidth": rate})})
    found = costmodel.estimate(MODEL, twice, text_tokens=64, compress="spatial:k=64")
    row = pick(
        records("sensitivity"), gpu=A100, runtime="cuda-graph", quantity="memory bandwidth",
        factor=2.0,
    )  # fmt: skip
    assert row["index_ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"], rel=1e-9)


@pytest.mark.parametrize("quantity", ["memory bandwidth", "compute peak", "launch cost"])
def test_more_of_a_quantity_moves_times_its_way(quantity: str) -> None:
    for gpu in (A100, A6000):
        own = [
            row for row in records("sensitivity")
            if (row["gpu"], row["runtime"], row["quantity"]) == (gpu, "eager", quantity)
        ]  # fmt: skip
        times = [row["cluster_ttft_ms"] for row in sorted(own, key=lambda row: row["factor"])]
        assert times == sorted(times, reverse=quantity != "launch cost")
        assert times[0] != times[-1]


def test_narrow_weights_are_the_estimate() -> None:
    row = pick(records("sensitivity", 1), gpu=A100, runtime="cuda-graph", weights="int4")
    expected = ttft_ms(A100, weights_dtype="int4", compress="spatial:k=64")
    assert row["index_ttft_ms"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("source", "method", "model", "fits"),
    [
        ("PyramidDrop, table 1", "PDrop", "LLaVA-NeXT-7B", "A"),
        ("SparseVLM, table 1", "Vanilla", "LLaVA-1.5-7B", "A"),
        ("FastV, table 1", "Vanilla", "LLaVA-1.5-7B", "B"),
        ("STF, quoted in an OpenReview review", "STF+MBTF", "LLaVA-1.5-7B", "C or D"),
        ("LLaVA-PruMerge, table 2", "Vanilla", "LLaVA-1.5-7B FP16", "C or D"),
    ],
)
def test_counts_that_fit_printed_figures(source: str, method: str, model: str, fits: str) -> None:
    """A: layers x (4 n d^2 + 2 n^2 d + 3 n d m) multiply-adds; B with 2 n d m; C is twice A."""
    row = pick(records("conventions"), source=source, method=method, model=model)
    assert row["fits"] == fits
    n, d, m = row["mean_tokens"], 4096, 11008
    if method == "Vanilla":
        expected = 32 * (4 * n * d**2 + 2 * n**2 * d + 3 * n * d * m) / 1e12
        assert row["A_tera"] == pytest.approx(expected, rel=1e-12)
        assert row["C_tera"] == pytest.approx(2 * expected, rel=1e-12)
        assert row["B_tera"] == pytest.approx(expected - 32 * n * d * m / 1e12, rel=1e-12)


def test_wrong_labels_are_found() -> None:
    """M3's times are those of an A6000 although it names a V100; PruMerge's prompts differ."""
    rows = records("conventions", 1)
    cards = {row["source"].partition(",")[0]: row["nearest_card"] for row in rows}
    assert cards == {"M3": "A6000", "LLaVA-PruMerge": "V100"}
    for row in rows:
        near = row["v100_ms"] if row["nearest_card"] == "V100" else row["a6000_ms"]
        assert near == pytest.approx(row["printed_ms"], rel=0.005)
    strays = [row["method"] for row in records("conventions") if not row["fits_its_table"]]
    assert "FastV(K=0,R=90%)" in strays


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = ROOT / "docs" / "generate_studies.py"
    spec = importlib.util.spec_from_file_location("generate_studies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", list_studies())
def test_page_has_the_answer(generator: ModuleType, name: str) -> None:
    written = generator.TARGET.read_text(encoding="utf-8")
    assert generator.section(outcome(name)) in written, "run: python docs/generate_studies.py"


def test_page_has_no_other_study(generator: ModuleType) -> None:
    written = generator.TARGET.read_text(encoding="utf-8")
    assert re.findall("(?m)^## (.+)$", written) == list_studies()
    assert re.findall(r"(?m)^\| \[`(.+?)`\]", written) == list_studies()
