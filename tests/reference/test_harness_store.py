"""Rows on disk: nothing half written, nothing lost, nothing twice."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from costmodel.reference.harness.case import Case
from costmodel.reference.harness.errors import MeasureError
from costmodel.reference.harness.files import replace_file
from costmodel.reference.harness.order import coarse_first, merged
from costmodel.reference.harness.store import METADATA, Layout, Store

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'measure'")

WHERE = {"gpu": "cpu", "source": "lab", "software": "torch 1"}
TIMES = {"time_us": 2.0, "time_us_std": 0.1}


def _case(m: int, **notes: Any) -> Case:
    return Case("gemm", "gemm", {"dtype": "fp32", "m": m, "n": 2, "k": 3}, lambda i: i, notes)  # type: ignore[arg-type,return-value]


def _store(folder: Path, run: str = "a", flush_s: float = 1e9, **where: str) -> Store:
    made = Store(Layout(folder, ["gemm"]), ["gemm"], {**WHERE, **where}, {"run": run}, flush_s)
    made.record(run, {"who": run})
    return made


def _rows(folder: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "gemm.parquet").to_pylist())


def test_a_kill_between_cases_loses_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for m in (1, 2, 3):
        store.add(_case(m), TIMES)
    # Nothing was flushed: this is what a killed process leaves.
    assert not (tmp_path / "gemm.parquet").exists()
    again = _store(tmp_path, "b")
    assert [again.has(_case(m)) for m in (1, 2, 3, 4)] == [True, True, True, False]
    assert [row["m"] for row in _rows(tmp_path)] == [1, 2, 3]
    assert not (tmp_path / "journal.jsonl").exists()


def test_a_line_cut_off_is_the_only_one_lost(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for m in (1, 2, 3):
        store.add(_case(m), TIMES)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    again = _store(tmp_path, "b")
    assert [again.has(_case(m)) for m in (1, 2, 3)] == [True, True, False]
    again.add(_case(3), TIMES)
    again.flush()
    assert sorted(row["m"] for row in _rows(tmp_path)) == [1, 2, 3]


def test_a_kill_between_parquet_and_journal_doubles_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.add(_case(1), TIMES)
    journal = (tmp_path / "journal.jsonl").read_bytes()
    store.flush()
    (tmp_path / "journal.jsonl").write_bytes(journal)
    assert len(_store(tmp_path, "b").rows("gemm")) == 1
    assert len(_rows(tmp_path)) == 1


def test_rows_of_two_runs_are_kept_with_what_they_ran_on(tmp_path: Path) -> None:
    for run, m in (("a", 1), ("b", 2)):
        store = _store(tmp_path, run)
        store.add(_case(m, implementation=run) if m == 2 else _case(m), TIMES)
        store.flush()
    table = pq.read_table(tmp_path / "gemm.parquet")
    assert json.loads(table.schema.metadata[METADATA]) == {"a": {"who": "a"}, "b": {"who": "b"}}
    assert json.loads((tmp_path / "machine.json").read_text()) == {
        "a": {"who": "a"},
        "b": {"who": "b"},
    }
    assert [row["run"] for row in table.to_pylist()] == ["a", "b"]
    assert table.column("implementation").to_pylist() == [None, "b"]


def test_other_software_is_measured_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.add(_case(1), TIMES)
    store.flush()
    other = _store(tmp_path, "b", software="torch 2")
    assert not other.has(_case(1))
    other.add(_case(1), TIMES)
    other.flush()
    assert [row["software"] for row in _rows(tmp_path)] == ["torch 1", "torch 2"]


def test_parquet_is_written_every_few_seconds(tmp_path: Path) -> None:
    store = _store(tmp_path, flush_s=0.0)
    store.add(_case(1), TIMES)
    assert [row["m"] for row in _rows(tmp_path)] == [1]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError("no rename today")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no rename today"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_of_kinds_that_are_not_measured_now_can_be_seen(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.add(_case(1), TIMES)
    store.flush()
    other = Store(Layout(tmp_path, ["launch"]), ["launch"], WHERE, {"run": "b"})
    assert [row["m"] for row in other.rows_there("gemm")] == [1]
    (tmp_path / "memory_bound.parquet").write_bytes(b"of somebody else")
    assert other.rows_there("memory_bound") == []
    # One file alone is not taken for one of another kind.
    single = Store(Layout(tmp_path / "gemm.parquet", ["gemm"]), ["gemm"], WHERE, {"run": "c"})
    assert single.rows_there("memory_bound") == []


@pytest.mark.parametrize("content", [b"not parquet", b""])
def test_files_of_others_are_not_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gemm.parquet").write_bytes(content)
    with pytest.raises(MeasureError, match="no parquet file"):
        _store(tmp_path)
    assert (tmp_path / "gemm.parquet").read_bytes() == content


def test_parquet_of_others_is_not_overwritten(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"m": [1]}), tmp_path / "gemm.parquet")
    with pytest.raises(MeasureError, match="not written by this command"):
        _store(tmp_path)


def test_any_beginning_of_the_order_covers_the_range() -> None:
    for count in (0, 1, 2, 3, 7, 64, 101):
        ordered = coarse_first(range(count))
        assert sorted(ordered) == list(range(count))
    first = sorted(coarse_first(range(100))[:10])
    gaps = [b - a for a, b in pairwise(first)]
    assert (first[0], first[-1]) == (0, 99)
    assert max(gaps) <= 20


def test_suites_advance_together() -> None:
    ordered = merged([range(90), [f"x{i}" for i in range(10)]])
    assert len(ordered) == 100
    assert sum(isinstance(item, str) for item in ordered[:50]) == 5
