"""Files that cannot be used at all: one readable line each, which names the file."""

from __future__ import annotations

import gzip
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration.loading import load_timings
from costmodel.calibration.sources import torch_trace
from costmodel.errors import SpecError

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "timings"
GEMM = b"gpu,dtype,m,n,k,time_us\nA100,fp16,4096,4096,4096,600\n"
TRACE = b'{"schemaVersion": 1, "traceEvents": ['


def _nothing(path: Path) -> None:
    """Leave the path free."""


def _folder(path: Path) -> None:
    path.mkdir()


def _bytes(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _parquet(keep: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pd.read_csv(SAMPLES / "tidy_gemm.csv").to_parquet(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return write


def _database(statement: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    return write


def _broken_database(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)


CASES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "not found": ("a.csv", _nothing, "no such file"),
    "folder": ("a", _folder, "is a folder; name the files in it"),
    "empty": ("a.csv", _bytes(b""), "is empty"),
    "unknown text": ("a.csv", _bytes(b"hello,world\n1,2\n"), "not a format that is read. Known: a"),
    "unknown binary": ("a.bin", _bytes(b"\x00\x01\x02"), "not a format that is read"),
    "wrong ending": ("a.xlsx", _bytes(GEMM), "not a format that is read"),
    "Git LFS": (
        "a.parquet",
        _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a Git LFS pointer, not the data; run `git lfs pull`",
    ),
    "truncated parquet": ("a.parquet", _parquet(0.6), "parquet is truncated or damaged"),
    "UTF-16": ("a.csv", _bytes(GEMM.decode().encode("utf-16")), "is UTF-16 text; save it as UTF-8"),
    "Latin-1": ("a.csv", _bytes(b"gpu,\xe9\n1,2\n"), "is not UTF-8 text (byte 4)"),
    "Latin-1 later": (
        "a.csv",
        _bytes(GEMM + b"A100,fp16,64,64,64,6\n" * 9000 + b"A100,\xe9,64,64,64,6\n"),
        "is not UTF-8 text",
    ),
    "damaged gzip": ("a.json.gz", _bytes(gzip.compress(TRACE)[:12]), "cannot be read"),
    "column renamed": (
        "a.csv",
        _bytes(GEMM.replace(b"time_us", b"time")),
        "It lacks of tidy gemm timings: 'time_us' (did you mean 'time' for it?)",
    ),
    "column in capitals": (
        "a.csv",
        _bytes(GEMM.replace(b"m,n,k", b"M,N,K")),
        "'m' (did you mean 'M' for it?)",
    ),
    "column twice": ("a.csv", _bytes(GEMM.replace(b"dtype", b"m")), "column 'm' is there twice"),
    "attention without causal": (
        "a.csv",
        _bytes(b"gpu,casual,q_len,kv_len,time_us\nA100,1,1,1,1\n"),
        "column 'causal' of attention timings is missing; did you mean 'casual'",
    ),
    "header only": ("a.csv", _bytes(GEMM.splitlines()[0]), "no usable row"),
    "no usable row": (
        "a.csv",
        _bytes(GEMM.replace(b"600", b"0")),
        "no usable row: time_us: zero or negative (1)",
    ),
    "milliseconds": ("a.csv", _bytes(GEMM.replace(b"600", b"0.6")), "are the times in ms instead"),
    "seconds": ("a.csv", _bytes(GEMM.replace(b"600", b"0.0006")), "are the times in s instead"),
    "nanoseconds": ("a.csv", _bytes(GEMM.replace(b"600", b"6e5")), "are the times in ns instead"),
    "trace cut off": ("a.json", _bytes(TRACE), "not JSON, perhaps cut off"),
    "trace without a list": ("a.json", _bytes(b'{"traceEvents": 3}'), "no list traceEvents"),
    "trace without operators": ("a.json", _bytes(TRACE + b"]}"), "none of the operators aten::mm"),
    "other database": (
        "a.sqlite",
        _database("CREATE TABLE t (x)"),
        "no table CUPTI_ACTIVITY_KIND_KERNEL: not of nsys, or recorded without --trace=cuda",
    ),
    "damaged database": ("a.sqlite", _broken_database, "cannot be read as a database"),
    "nsys unit": (
        "a.csv",
        _bytes(b"Time (%),Total Time (fortnights),Instances,Name\n1,1,1,k\n"),
        "Total Time: unknown unit 'fortnights'",
    ),
    "ncu without units": (
        "a.csv",
        _bytes(b'"ID","Kernel Name","gpu__time_duration.sum"\n"0","k","12"\n'),
        "the row of units after the header is missing",
    ),
    "vidur without gpu": (
        "mlp.csv",
        _bytes((SAMPLES / "data/profiling/compute/a100/example/tiny/mlp.csv").read_bytes()),
        "column 'gpu' of gemm timings is missing; the file does not say: pass gpu=...",
    ),
}


@pytest.mark.parametrize(("name", "write", "message"), CASES.values(), ids=CASES)
def test_unusable_files(
    name: str, write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        load_timings([path])
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text


def test_traces_have_a_longest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_trace, "MAX_BYTES", 1000)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress((SAMPLES / "trace.json").read_bytes()))
    with pytest.raises(SpecError, match="longer than 0 GB unpacked; record fewer steps"):
        load_timings([path])


def test_a_database_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    _database("CREATE TABLE t (x)")(path)
    path.chmod(0o444)
    before = path.read_bytes()
    with pytest.raises(SpecError):
        load_timings([path])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sqlite"]
