"""Vidur's tables: shapes by hand from the sizes of the sample's model, ms to us."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration.loading import load_timings

PROFILING = Path(__file__).resolve().parents[1] / "data" / "timings" / "data" / "profiling"
MLP = PROFILING / "compute/a100/example/tiny/mlp.csv"
ATTENTION = MLP.with_name("attention.csv")
ALL_REDUCE = PROFILING / "network/a100_dgx/all_reduce.csv"


def test_shapes_of_matrix_products() -> None:
    """Width 1024, 16 heads of 64 with 4 of keys, a gated layer of 4096; row 3 has 8 workers."""
    timings, _ = load_timings([MLP])
    frame = next(each.frame for each in timings if each.kind == "gemm").set_index(["op", "tp"])
    shapes = {key: tuple(frame.loc[key, ["m", "n", "k"]]) for key in frame.index}
    assert shapes["attn_pre_proj", 1] == (2048, (16 + 2 * 4) * 64, 1024)
    assert shapes["attn_pre_proj", 2] == (1024, (16 + 2 * 4) * 64 // 2, 1024)
    # Eight workers share four heads of keys: each keeps a copy of one.
    assert shapes["attn_pre_proj", 8] == (2048, (16 + 2 * 8) * 64 // 8, 1024)
    assert shapes["attn_post_proj", 2] == (1024, 1024, 512)
    assert shapes["mlp_up_proj", 2] == (1024, 2 * 4096 // 2, 1024)
    assert shapes["mlp_down_proj", 2] == (1024, 1024, 4096 // 2)
    assert frame.loc[("mlp_up_proj", 1), "time_us"] == pytest.approx(150)
    assert frame.loc[("mlp_up_proj", 1), "time_us_max"] == pytest.approx(180)
    assert set(frame["model"]) == {"tiny"}
    assert set(frame["gpu"]) == {"a100-80gb-sxm"}


def test_other_operators_of_a_layer() -> None:
    timings, report = load_timings([MLP])
    frame = next(each.frame for each in timings if each.kind == "memory_bound")
    cols = frame[frame["tp"] == 8].set_index("op")["cols"].to_dict()
    assert cols == {
        "emb": 1024,
        "input_layernorm": 1024,
        "add": 1024,
        "mlp_act": 4096 // 8,
        "attn_rope": (16 + 8) * 64 // 8,
    }
    assert frame["gated"].all()
    (absent,) = report.problems
    assert absent.reason == "time_stats.post_attention_layernorm: no value in the whole file"
    assert not absent.dropped
    assert report.kept == 3 * 9


def test_attention() -> None:
    timings, _ = load_timings([ATTENTION])
    rows = {each.kind: each.frame for each in timings}
    prefill, decode = rows["attention_prefill"], rows["attention_decode"]
    sizes = ["batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "time_us"]
    assert list(prefill[sizes].loc[1]) == [1, 512, 512 + 1024, 16, 4, 64, 80]
    assert list(prefill[sizes].loc[2]) == [1, 2048, 2048, 2, 1, 64, 50]
    assert list(decode[sizes].loc[3]) == [8, 1, 1025, 16, 4, 64, 20]
    assert set(prefill["kernel"]) == {"flash_attention"}


def test_mixed_batches_are_left_out(tmp_path: Path) -> None:
    frame = pd.read_csv(ATTENTION)
    frame["is_mixed_batch"] = [False, True, False]
    path = tmp_path / "attention.csv"
    frame.to_csv(path, index=False)
    _, report = load_timings([path], gpu="a100")
    (problem,) = report.problems
    assert (problem.rows, problem.count) == ((2,), 1)
    assert problem.reason.startswith("is_mixed_batch: ")
    assert report.kept == 2


def test_network() -> None:
    (timings,), _ = load_timings([ALL_REDUCE])
    row = timings.frame.loc[2]
    assert list(row[["op", "topology", "gpu"]]) == ["all_reduce", "a100_dgx", "a100-80gb-sxm"]
    assert list(row[["n_gpus", "gpus_per_node", "bytes", "rank"]]) == [8, 8, 67108864, 0]
    assert row["time_us"] == pytest.approx(600)


def test_the_gpu_may_be_given(tmp_path: Path) -> None:
    path = shutil.copy(MLP, tmp_path / "mlp.csv")
    timings, _ = load_timings([path], gpu="a40")
    assert {name for each in timings for name in each.frame["gpu"]} == {"a40"}


def test_operators_of_unknown_shape_are_counted(tmp_path: Path) -> None:
    text = MLP.read_text(encoding="utf-8").replace("time_stats.add.", "time_stats.router.")
    path = tmp_path / "mlp.csv"
    path.write_text(text, encoding="utf-8")
    _, report = load_timings([path], gpu="a100")
    reasons = {problem.reason: problem.count for problem in report.problems if problem.dropped}
    assert reasons == {"time_stats.router: an operator of unknown shape": 3}
    assert report.read == 27
