"""Files as other readers see them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import SpecError
from costmodel.sweep import run_sweep, thrift, to_frame
from costmodel.sweep.thrift import BINARY, I64, STRUCT, read_struct, write_struct

SPEC: dict[str, Any] = {
    "models": ["llava-1.5-7b", "llama-2-7b"], "gpus": ["a40", "h100-sxm", "l40s", "a100-80gb-sxm"],
    "methods": ["none", "stf", "mbtf"], "batch": [1, 7], "text_tokens": {"range": [1, 50, 1]},
    "bands": True,
}  # fmt: skip
"""Sixteen blocks: two parts, and a model that has no visual tokens."""


def test_parquet_is_the_frame_with_its_metadata(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    summary = run_sweep(SPEC, output)
    file = pq.ParquetFile(output)
    assert (file.metadata.num_rows, file.num_row_groups) == (1600, 2)
    frame = to_frame(SPEC)
    pd.testing.assert_frame_equal(pd.read_parquet(output), frame)
    # Row groups alone, and single columns: every position was moved.
    second = file.read_row_group(1).to_pandas()
    pd.testing.assert_frame_equal(second, frame.iloc[800:].reset_index(drop=True))
    only = pq.read_table(output, columns=["ttft_s"], filters=[("batch", "=", 7)])
    assert only["ttft_s"].to_pylist() == frame[frame["batch"] == 7]["ttft_s"].tolist()
    said = json.loads(file.metadata.metadata[b"costmodel"])
    assert said["points"] == summary.points == 1600
    assert said["spec"]["text_tokens"] == list(range(1, 51))
    assert {item["name"].split(".")[0] for item in said["calibrations"]} >= {"a40", "l40s"}
    assert all(len(item["sha256"]) == 64 for item in said["calibrations"])
    assert sum(item["points"] for item in said["left_out"]) == 1600 / 2
    assert said["left_out"][0]["what"].startswith("llama-2-7b, stf")


def test_csv_reads_back_to_the_bit_and_has_a_sidecar(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    run_sweep(SPEC, output)
    frame = to_frame(SPEC)
    read = pd.read_csv(output, dtype=str, keep_default_na=False)
    assert list(read) == list(frame)
    for name in frame:
        own, text = frame[name].tolist(), read[name].tolist()
        kind = type(own[0])
        assert [x if kind is str else x == "True" if kind is bool else kind(x) for x in text] == own
    said = json.loads((tmp_path / "out.csv.json").read_text())
    assert said["spec"]["gpu"] == SPEC["gpus"]
    run_sweep(SPEC, tmp_path / "out.parquet")
    stored = pq.read_metadata(tmp_path / "out.parquet").metadata[b"costmodel"]
    assert json.loads(stored) == said


VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.tuples(st.sampled_from([thrift.I16, thrift.I32, I64]), st.integers(-(2**62), 2**62)),
        st.tuples(st.just(BINARY), st.binary(max_size=300)),
        st.tuples(st.just(thrift.DOUBLE), st.binary(min_size=8, max_size=8)),
        st.booleans().map(lambda x: (thrift.TRUE if x else thrift.FALSE, x)),
        st.tuples(st.just(STRUCT), STRUCTS),
        st.lists(st.integers(-(2**40), 2**40), max_size=40).map(lambda x: (thrift.LIST, (I64, x))),
        st.lists(STRUCTS, max_size=3).map(lambda x: (thrift.LIST, (STRUCT, x))),
    )
)
STRUCTS: st.SearchStrategy[Any] = st.dictionaries(st.integers(1, 300), VALUES, max_size=4)


@given(STRUCTS)
def test_thrift_reads_what_it_writes(struct: Any) -> None:
    assert read_struct(write_struct(struct)) == dict(sorted(struct.items()))


def test_thrift_rewrites_a_real_footer_to_the_byte(tmp_path: Path) -> None:
    pd.DataFrame({"a": range(9), "b": ["x"] * 9, "c": [0.5] * 9}).to_parquet(tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    assert write_struct(read_struct(footer)) == footer


@pytest.mark.parametrize("data", [b"\x15", b"\x18\x05ab", b"\x1b\x00"])
def test_thrift_refuses_what_is_none(data: bytes) -> None:
    with pytest.raises(SpecError, match="thrift"):
        read_struct(data)
