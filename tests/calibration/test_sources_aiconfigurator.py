"""AIConfigurator's tables: ms, elements, absent heads of keys, and what has no tidy column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration.loading import load_timings

DATA = Path(__file__).resolve().parents[1] / "data" / "timings" / "systems" / "data" / "h100_sxm"
VLLM = DATA / "vllm" / "1.0.0"


def test_gemm() -> None:
    (timings,), _ = load_timings([VLLM / "gemm_perf.txt"])
    frame = timings.frame
    assert frame["dtype"].tolist() == ["bf16", "fp8", "w4a16"]
    assert frame["time_us"].tolist() == pytest.approx([210, 130, 12])
    assert set(frame["software"]) == {"vllm/1.0.0"}
    assert set(frame["gpu"]) == {"h100-sxm"}


def test_context_attention() -> None:
    (timings,), report = load_timings([VLLM / "context_attention_perf.txt"])
    sizes = ["q_len", "kv_len", "heads", "kv_heads"]
    # num_key_value_heads 0 is as many as heads; step is a prefix in the cache.
    assert timings.frame[sizes].to_numpy().tolist() == [[2048, 2048, 32, 32], [512, 2048, 32, 8]]
    assert timings.kind == "attention_prefill"
    reasons = {problem.reason.split(":")[0]: problem.rows for problem in report.problems}
    assert reasons == {"window_size": (3,), "kv_cache_dtype": (4,)}


def test_generation_attention() -> None:
    (timings,), report = load_timings([VLLM / "generation_attention_perf.txt"])
    assert timings.kind == "attention_decode"
    sizes = ["batch", "q_len", "kv_len", "heads", "kv_heads"]
    assert list(timings.frame[sizes].loc[1]) == [8, 1, 2048, 32, 8]
    assert [problem.rows for problem in report.problems] == [(2,)]


def test_encoder_attention() -> None:
    (timings,), _ = load_timings([VLLM / "encoder_attention_perf.txt"])
    assert timings.kind == "attention_encoder"
    assert not timings.frame["causal"].any()
    assert list(timings.frame[["q_len", "kv_len", "kv_heads"]].loc[1]) == [577, 577, 16]


def test_collectives_count_elements() -> None:
    (nccl,), report = load_timings([DATA / "nccl" / "2.20" / "nccl_perf.txt"])
    assert nccl.frame["bytes"].tolist() == [2 * 2**20, 2**20]
    assert nccl.frame["op"].tolist() == ["all_gather", "all_reduce"]
    assert set(nccl.frame["software"]) == {"nccl/2.20"}
    assert [problem.rows for problem in report.problems] == [(3,)]
    (custom,), _ = load_timings([VLLM / "custom_allreduce_perf.txt"])
    row = custom.frame.loc[1]
    assert row["bytes"] == 2 * 2**20
    assert row["op"] == "custom_all_reduce"
    assert row["software"] == "vllm/1.0.0 custom_graph"
    assert row["n_gpus"] == row["gpus_per_node"] == 8


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.txt")), ids=lambda path: path.stem)
def test_parquet_is_read_like_text(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.relative_to(DATA.parents[1]).with_suffix(".parquet")
    copy.parent.mkdir(parents=True)
    pd.read_csv(path, dtype={"version": str}).to_parquet(copy)
    expected, report = load_timings([path])
    found, again = load_timings([copy])
    assert (again.kept, again.dropped) == (report.kept, report.dropped)
    for a, b in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(a.frame, b.frame)


def test_software_of_a_file_out_of_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "gemm_perf.txt"
    path.write_text((VLLM / "gemm_perf.txt").read_text(encoding="utf-8"), encoding="utf-8")
    (timings,), _ = load_timings([path])
    assert set(timings.frame["software"]) == {"vllm/1.0.0"}
