"""Tidy tables: kinds, types, defaults, parquet against CSV, and what validation counts."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration import tables
from costmodel.calibration.files import read_head
from costmodel.calibration.formats import find_source, list_sources, load_source
from costmodel.calibration.loading import load_timings
from costmodel.calibration.report import Problem, Report
from costmodel.calibration.schema import KINDS
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import SpecError, UnknownNameError

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "timings"
FILES = sorted(p for p in SAMPLES.rglob("*") if p.is_file() and p.suffix != ".md")
HEADER = "gpu,dtype,m,n,k,time_us\n"


def _file(tmp_path: Path, text: str, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_sample_is_of_exactly_one_format(path: Path) -> None:
    head = read_head(path)
    found = [
        name
        for name in list_sources()
        if path.name.endswith(load_source(name).SUFFIXES) and load_source(name).matches(path, head)
    ]
    assert len(found) == 1
    assert find_source(path, head) is load_source(found[0])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_sample_becomes_tidy_frames(path: Path) -> None:
    timings, report = load_timings([path])
    assert report.kept == sum(map(len, timings))
    for each in timings:
        assert tuple(each.frame.columns) == KINDS[each.kind].names
        assert each.frame.index.name == "row"
        assert (each.frame["time_us"] > 0).all()
        assert each.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        for column in KINDS[each.kind].columns:
            if column.type == "int":
                assert each.frame[column.name].dtype == "int64"
                assert (each.frame[column.name] >= column.low).all()
            if column.type == "flag":
                assert each.frame[column.name].dtype == bool


def test_every_format_has_a_sample() -> None:
    databases = {"nsys_sqlite"}
    seen = {find_source(path, read_head(path)) for path in FILES}
    assert {load_source(name) for name in set(list_sources()) - databases} == seen


def test_gemm_rows() -> None:
    (timings,), report = load_timings([SAMPLES / "tidy_gemm.csv"])
    frame = timings.frame
    assert timings.kind == "gemm"
    assert frame["gpu"].tolist() == ["a100-80gb-sxm"] * 4 + ["rtx-a6000"] * 2
    assert frame["dtype"].tolist() == ["fp16", "fp16", "fp16", "bf16", "fp16", "w4a16"]
    assert list(frame[["m", "n", "k"]].loc[4]) == [1024, 12288, 4096]
    assert frame["op"].unique().tolist() == ["gemm"]
    assert frame["time_us_min"].isna().tolist() == [False, False, True, False, False, True]
    assert (report.read, report.kept, report.dropped) == (6, 6, 0)
    (again,) = report.problems
    assert (again.rows, again.count, again.dropped) == ((2,), 1, False)


def test_attention_rows_split_by_kind() -> None:
    timings, _ = load_timings([SAMPLES / "tidy_attention.csv"])
    rows = {each.kind: each.frame.index.tolist() for each in timings}
    assert rows == {
        "attention_prefill": [1, 2],
        "attention_encoder": [3, 5],
        "attention_decode": [4],
    }


@pytest.mark.parametrize(
    "name", ["tidy_gemm", "tidy_attention", "tidy_memory_bound", "tidy_collective"]
)
def test_parquet_is_read_like_csv(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = SAMPLES / f"{name}.csv"
    parquet = tmp_path / f"{name}.parquet"
    pd.read_csv(csv).to_parquet(parquet, row_group_size=2)
    expected, _ = load_timings([csv])
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    for path in (csv, parquet):
        found, _ = load_timings([path])
        for a, b in zip(found, expected, strict=True):
            assert a.kind == b.kind
            pd.testing.assert_frame_equal(a.frame, b.frame)


def test_hints_fill_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = _file(tmp_path, "gpu,m,n,k,time_us\n,4096,4096,4096,600\nA40,4096,4096,4096,1200\n")
    (timings,), _ = load_timings(
        [path], gpu="A100-SXM4-80GB", dtype="half", source="me", software="torch 9"
    )
    assert timings.frame["gpu"].tolist() == ["a100-80gb-sxm", "a40"]
    assert timings.frame["dtype"].tolist() == ["fp16", "fp16"]
    assert timings.frame["source"].tolist() == ["me", "me"]
    assert timings.frame["software"].tolist() == ["torch 9", "torch 9"]


def test_own_devices(tmp_path: Path) -> None:
    own = load_gpu("a100-80gb-sxm").model_copy(update={"name": "my-card"})
    path = _file(tmp_path, HEADER + "Lab Card 7,fp16,4096,4096,4096,600\n")
    (timings,), _ = load_timings([path], profiles={"Lab Card 7": own})
    assert timings.frame["gpu"].tolist() == ["my-card"]


def test_unknown_hints() -> None:
    with pytest.raises(UnknownNameError, match="unknown gpu 'a100-80g-sxm'"):
        load_timings([], gpu="a100-80g-sxm")
    with pytest.raises(UnknownNameError, match="unknown dtype 'bp16'"):
        load_timings([], dtype="bp16")
    with pytest.raises(UnknownNameError, match=r"unknown timing format 'vidurr'.*vidur"):
        load_source("vidurr")


GOOD = "A100,fp16,4096,4096,4096,600\n"
BAD_ROWS = {
    "time missing": ("A100,fp16,64,64,64,", "time_us: missing"),
    "time NaN": ("A100,fp16,64,64,64,nan", "time_us: not a number"),
    "time text": ("A100,fp16,64,64,64,fast", "time_us: not a number"),
    "time zero": ("A100,fp16,64,64,64,0", "time_us: zero or negative"),
    "time negative": ("A100,fp16,64,64,64,-3", "time_us: zero or negative"),
    "time infinite": ("A100,fp16,64,64,64,inf", "time_us: infinite"),
    "size missing": ("A100,fp16,,64,64,6", "m: missing"),
    "size fraction": ("A100,fp16,64,64.5,64,6", "n: not a whole number"),
    "size zero": ("A100,fp16,64,64,0,6", "k: below 1"),
    "size negative": ("A100,fp16,-64,64,64,6", "m: below 1"),
    "size huge": ("A100,fp16,1e300,64,64,6", "m: not a whole number"),
    "size text": ("A100,fp16,64,wide,64,6", "n: not a number"),
    "gpu missing": (",fp16,64,64,64,6", "gpu: missing"),
    "gpu unknown": (
        "A10O-SXM4-80GB,fp16,64,64,64,6",
        "gpu: unknown name 'A10O-SXM4-80GB'; did you mean A100-SXM4-80GB?",
    ),
    "gpu a path": ("../a100.yaml,fp16,64,64,64,6", "gpu: unknown name '../a100.yaml'"),
    "dtype missing": ("A100,,64,64,64,6", "dtype: missing"),
    "dtype unknown": ("A100,fb16,64,64,64,6", "dtype: unknown format 'fb16'; did you mean"),
    "fields": ("A100,fp16,64,64,64,6,7", "the header has 6 fields"),
    "too fast": ("A100,fp16,4096,4096,4096,60", "time_us: gemm faster than the fp16 peak"),
}


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_dropped_with_their_reason(row: str, reason: str, tmp_path: Path) -> None:
    path = _file(tmp_path, HEADER + GOOD + row + "\n" + GOOD.replace("600", "610"))
    (timings,), report = load_timings([path])
    assert timings.frame.index.tolist() == [1, 3]
    (problem,) = (problem for problem in report.problems if problem.dropped)
    assert problem.reason.startswith(reason)
    assert (problem.path, problem.rows, problem.count) == (path, (2,), 1)
    assert (report.read, report.kept, report.dropped) == (3, 2, 1)
    assert f"row 2: {reason}" in str(report)


ATTENTION_HEADER = "gpu,dtype,causal,batch,q_len,kv_len,heads,kv_heads,head_dim,time_us\n"


@pytest.mark.parametrize(
    ("header", "good", "bad", "reason"),
    [
        (
            ATTENTION_HEADER,
            "A100,fp16,True,1,2048,2048,32,32,128,230",
            "A100,fp16,True,1,2048,2048,32,5,128,230",
            "heads: not a multiple of kv_heads",
        ),
        (
            ATTENTION_HEADER,
            "A100,fp16,True,1,2048,2048,32,32,128,230",
            "A100,fp16,True,1,2048,1024,32,32,128,230",
            "kv_len: below q_len",
        ),
        (
            ATTENTION_HEADER,
            "A100,fp16,1,1,2048,2048,32,32,128,230",
            "A100,fp16,perhaps,1,2048,2048,32,32,128,230",
            "causal: neither true nor false",
        ),
        (
            "gpu,op,n_gpus,gpus_per_node,bytes,time_us\n",
            "A100,all_reduce,8,8,67108864,600",
            "A100,all_reduce,8,16,67108864,600",
            "gpus_per_node: more than n_gpus",
        ),
        (
            "gpu,op,n_gpus,gpus_per_node,bytes,time_us\n",
            "A100,all_reduce,8,8,67108864,600",
            "A100,all_reduce,1,1,67108864,600",
            "n_gpus: below 2",
        ),
        (
            "gpu,op,dtype,rows,cols,time_us,time_us_min,time_us_max\n",
            "A100,add,fp16,4096,4096,55,50,60",
            "A100,add,fp16,4096,4096,70,50,60",
            "time_us: outside time_us_min to time_us_max",
        ),
    ],
)
def test_rows_that_contradict_themselves(
    header: str, good: str, bad: str, reason: str, tmp_path: Path
) -> None:
    (timings,), report = load_timings([_file(tmp_path, header + f"{good}\n{bad}\n")])
    assert timings.frame.index.tolist() == [1]
    (problem,) = report.problems
    assert problem.reason.startswith(reason)


def test_problems_name_the_first_rows_only(tmp_path: Path) -> None:
    path = _file(tmp_path, HEADER + GOOD + "A100,fp16,64,64,64,0\n" * 9)
    _, report = load_timings([path])
    (problem,) = report.problems
    assert (problem.rows, problem.count) == ((2, 3, 4, 5, 6), 9)
    assert str(problem) == f"{path}: rows 2, 3, 4, 5, 6, ...: {problem.reason} (9 dropped)"
    assert str(Problem(path, "odd", (), 0)) == f"{path}: odd"


def test_several_files_in_one_report() -> None:
    names = ["tidy_gemm.csv", "tidy_memory_bound.csv"]
    timings, report = load_timings([str(SAMPLES / name) for name in names])
    assert [each.path.name for each in timings] == names
    assert report.kept == 9
    assert isinstance(report, Report)


CELLS = {
    "gpu": ["A100", "a40", "", "NVIDIA-A30", "Z9"],
    "dtype": ["fp16", "bfloat16", "", "int9"],
    "m": ["64", "4096", "0", "-1", "x", "", "1.5", "8.0"],
    "n": ["4096", "nan", "1e4"],
    "k": ["4096", "inf"],
    "time_us": ["600", "0", "-1", "", "nan", "inf", "610"],
}
ROWS = st.lists(st.tuples(*(st.sampled_from(cells) for cells in CELLS.values())), max_size=12)


@given(rows=ROWS)
def test_each_row_is_kept_or_counted(
    rows: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [",".join(CELLS), "A100,fp16,4096,4096,4096,600", *map(",".join, rows)]
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    (timings,), report = load_timings([path])
    assert report.read == len(rows) + 1
    assert report.kept == len(timings) == len(timings.frame.index.unique())
    frame = timings.frame
    assert frame["time_us"].between(0, float("inf"), inclusive="neither").all()
    assert (frame[["m", "n", "k"]] > 0).all(axis=None)
    assert set(frame["gpu"]) <= {"a100-80gb-sxm", "a40", "a30"}


def test_kinds_are_told_apart_by_columns() -> None:
    """No table can be two kinds, the three of attention aside, which rows tell apart."""
    tells = {kind.tell for kind in KINDS.values() if kind.tell}
    for a, b in itertools.combinations(tells, 2):
        assert not set(a) & set(b)
    assert all(set(kind.tell) <= set(kind.names) for kind in KINDS.values())


def test_a_missing_column_without_a_default_is_an_error(tmp_path: Path) -> None:
    path = _file(tmp_path, "gpu,data_type,m,n,k,time_us\n" + GOOD)
    with pytest.raises(SpecError, match="column 'dtype' of gemm timings is missing; did you mean"):
        load_timings([path])
    path = _file(tmp_path, "m,n,k,time_us\n64,64,64,5\n")
    with pytest.raises(SpecError, match=r"column 'gpu'.*pass gpu="):
        load_timings([path])
