"""Suite compression: methods alone, in rows that the cost model predicts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from costmodel.calibration.judging import validate_timings
from costmodel.calibration.loading import load_timings
from costmodel.calibration.method_requests import params_of
from costmodel.calibration.schema import KINDS
from costmodel.reference.harness.case import Case, Options
from costmodel.reference.harness.measuring import measure
from costmodel.reference.harness.registry import load_suite
from costmodel.reference.harness.request import Request
from costmodel.reference.harness.store import WHERE
from costmodel.reference.models.shapes import load_shape
from costmodel.reference.suites._methods import Run, kept_counts, runs_of

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
pd = pytest.importorskip("pandas")

pytestmark = pytest.mark.verify

OPTIONS = {
    "quick": Options(quick=True, dtypes=("fp32", "bf16")),
    "cpu": Options(),
    "cuda": Options(device="cuda", dtypes=("fp16",)),
    "chosen": Options(models=("llama-3-8b", "llava-1.5-13b"), tokens=(100, 576), quick=True),
}
JUDGED = {"random", "spatial", "cluster", "avgpool", "stf", "mbtf", "mbtf+stf"}


def cases_of(options: Options) -> list[Case]:
    return list(load_suite("compression").cases(options))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all quick rows of the suite and what makes a profile of the CPU."""
    folder = tmp_path_factory.mktemp("measured")
    for suites, tokens in ((("gemm", "memory_bound"), (64,)), (("compression",), ())):
        done = measure(
            Request(folder, suites=suites, quick=True, threads=1, tokens=tokens), io.StringIO()
        )
        assert done.outcome.failed == 0, done.lines()
    return folder


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cases_have_the_columns_of_the_schema(options: Options) -> None:
    cases = cases_of(options)
    kind = KINDS["compression"]
    for case in cases:
        assert set(kind.key) - set(WHERE) == set(case.key)
        assert 1 <= int(case.key["kept"]) <= int(case.key["tokens"])
        assert params_of(str(case.key["params"])) is not None
    keys = [tuple(sorted(case.key.items())) for case in cases]
    assert len(set(keys)) == len(keys)
    runtimes = {case.key["runtime"] for case in cases}
    assert runtimes == (
        {"eager", "compiled", "cuda-graph"} if options.device == "cuda" else {"eager"}
    )


def test_every_method_is_timed() -> None:
    from costmodel.reference.methods import load_method, method_names

    cases = cases_of(OPTIONS["cuda"])
    variants = {(case.key["method"], case.key["variant"]) for case in cases}
    wanted = {(name, one) for name in method_names() for one in load_method(name).variants}
    pytest.importorskip("sklearn", reason="a variant of one method")
    assert variants == wanted
    assert {case.key["method"] for case in cases_of(OPTIONS["quick"])} == set(method_names())


@pytest.mark.parametrize("tokens", [64, 500, 576])
def test_runs_can_be_prepared_and_say_what_a_graph_can_hold(tokens: int) -> None:
    from costmodel.reference.methods import load_method
    from costmodel.reference.suites.compression import method_case

    # The token counts of a real model at widths that a CPU can do.
    made: list[Run] = list(runs_of(load_shape("llava-small"), tokens, OPTIONS["cuda"]))
    chosen = [run for run in made if run.method != "tome" or run.variant == "step"]
    for run in chosen:
        ready = load_method(run.method).prepare(method_case(run, "cpu", "fp32", 1))
        assert ready.graph_safe == run.graph, run
        assert ready.output_tokens in (None, run.kept), run


def test_shares_kept_are_those_of_windows() -> None:
    assert kept_counts(576) == (144, 64, 16)
    assert kept_counts(7) == (2, 1, 1)
    assert kept_counts(25) == (6,)


def test_rows_are_read_without_loss(measured: Path) -> None:
    (timings,), report = load_timings([measured / "compression.parquet"], gpu=measured / "cpu.yaml")
    assert not report.problems
    assert timings.kind == "compression"
    assert len(timings) == len(cases_of(Options(quick=True)))


def test_launches_are_counted(measured: Path) -> None:
    frame = pd.read_parquet(measured / "compression.parquet")
    launches = frame.groupby(["method", "variant", "batch"])["launches"].min().to_dict()
    # What the modules of the methods say, counted in their own tests.
    assert launches["stf", "linear", 1] == launches["mbtf", "linear", 1] == 4
    assert launches["mbtf+stf", "linear", 2] == 8
    assert launches["random", "batched", 1] == launches["random", "batched", 2] == 3
    assert launches["random", "loop", 2] > launches["random", "loop", 1]
    assert launches["cluster", "eager", 2] > 1.9 * launches["cluster", "eager", 1]
    assert launches["cluster", "fused", 2] == launches["cluster", "fused", 1]


def test_rows_are_judged(measured: Path) -> None:
    result = validate_timings(
        [measured / "compression.parquet"], gpu=measured / "cpu.yaml", min_time_us=0
    )
    groups = {group.stack.kind.removeprefix("compression "): group for group in result.groups}
    assert set(groups) == JUDGED
    frame = pd.read_parquet(measured / "compression.parquet")
    for name, group in groups.items():
        known = frame[(frame["method"] == name) & ~frame["variant"].isin(["loop", "conv"])]
        assert group.errors.n == len(known), name
        assert group.points["predicted_s"].between(1e-10, 1.0).all()
    left_out = sum(problem.count for problem in result.problems)
    assert left_out == len(frame) - sum(group.errors.n for group in groups.values())


def test_predicted_launches_are_near_those_counted(measured: Path) -> None:
    """The plan's kernels against operators of the implementation, which may be several kernels."""
    result = validate_timings(
        [measured / "compression.parquet"], gpu=measured / "cpu.yaml", min_time_us=0
    )
    frame = pd.read_parquet(measured / "compression.parquet").fillna({"params": ""})
    keys = ["variant", "runtime", "batch", "tokens", "kept", "width", "params"]
    ratios: dict[str, Any] = {}
    for group in result.groups:
        name = group.stack.kind.removeprefix("compression ")
        counted = frame[frame["method"] == name][[*keys, "launches"]]
        both = group.points.merge(counted, on=keys)
        assert len(both) == group.errors.n
        ratios[name] = both["predicted_launches"] / both["launches"]
    for name in JUDGED:
        assert ratios[name].between(0.75, 1.34).all(), (name, list(ratios[name]))
