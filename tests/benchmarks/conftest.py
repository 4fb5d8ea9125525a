"""Runs as a GPU would send them home, made of predictions and noise."""

from __future__ import annotations

import datetime
import importlib
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from costmodel.calibration.building import chip_of
from costmodel.calibration.elementwise_bytes import elementwise_sizes
from costmodel.calibration.method_overheads import OverheadGroup, predict_overheads
from costmodel.calibration.method_requests import request_of
from costmodel.calibration.schema import KINDS
from costmodel.calibration.setups import SETUPS
from costmodel.calibration.whole_models import predict
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.calibrations import load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError
from costmodel.reference.harness.case import Case, Options
from costmodel.reference.harness.registry import load_suite
from costmodel.reference.harness.store import Layout, Store
from costmodel.reference.suites import _requests
from costmodel.specs.calibration import Calibration, HostFit
from costmodel.timing.prediction import kernel_time_s

ROOT = Path(__file__).resolve().parents[2]
GPU = load_gpu("h200")
SOFTWARE, DTYPE, MODEL = "torch 2.11.0+cu130", "bf16", "llava-1.5-7b"
NOISE = {"whole_model": 0.02, "compression": 0.02, "launch": 0.002}
KERNEL_NOISE = 0.03
"""Standard deviation of the logarithm of times."""
KERNEL_US = 1.5
"""Time on the device of the kernel that the suite ``launch`` starts."""
HOST = {
    runtime: HostFit(
        runtime=runtime, launch_s=launch * 1e-6, launch_low_s=0.9e-6 * launch,
        launch_high_s=1.2e-6 * launch, start_s=start * 1e-6, gap_s=gap * 1e-6, sync_s=sync * 1e-6,
        source="test", software=SOFTWARE, rows=1, fitted=datetime.date(2026, 1, 1),
    )
    for runtime, launch, start, gap, sync in (
        ("eager", 5.0, 0.0, 0.8, 9.0),
        ("compiled", 2.5, 20.0, 0.8, 9.0),
        ("cuda-graph", 0.7, 12.0, 0.3, 10.0),
    )
}  # fmt: skip
TOKENS = (1, 16, 64, 128, 192, 256, 384, 512, 640, 1024, 1536, 2048, 4096)
PROMPTS = (40, 640, 4096)
COMPRESSED = ("cluster", "stf", "random")


@dataclass(frozen=True)
class Made:
    """Archives of two runs, and the calibration that their times come from."""

    runs: tuple[Path, Path]
    truth: Path


def truth() -> Calibration:
    """The shipped calibration with attention that PyTorch has, and a host of its own."""
    shipped = load_calibration("h200.aic-vllm", GPU)
    flash2 = load_calibration("a100-80gb-sxm.aic-vllm", load_gpu("a100-80gb-sxm"))
    kinds = {fit.kind: fit for fit in shipped.kinds}
    for kind in ("attention_prefill", "attention_encoder", "attention_decode"):
        found = flash2.find(kind) or kinds[kind]
        kinds[kind] = found.model_copy(update={"residual": None})
    return shipped.model_copy(
        update={"name": "h200.truth", "kinds": tuple(kinds.values()), "host": tuple(HOST.values())}
    )


def cases() -> list[Case]:
    """The cases that the suites have on a GPU, fewer of each."""
    made: list[Case] = []
    for suite in ("gemm", "attention", "memory_bound", "launch", "compression", "prefill"):
        tokens = {"gemm": TOKENS, "attention": TOKENS[1:], "memory_bound": TOKENS,
                  "prefill": PROMPTS}.get(suite, ())  # fmt: skip
        options = Options("cuda", (DTYPE,), (MODEL,), tokens)
        made += load_suite(suite).cases(options)
    made += load_suite("blocks").cases(Options("cuda", (DTYPE,), (MODEL,), (16, 640)))
    once = {(c.suite, c.kind, *sorted(c.key.items())): c for c in made}
    return [case for case in once.values() if _wanted(case)]


def _wanted(case: Case) -> bool:
    if case.kind != "compression":
        return True
    key = case.key
    few = key["batch"] in (1, 4) and key["kept"] in (64, 144) and "=5" not in str(key["params"])
    return few and key["tokens"] == 576 and key["method"] in COMPRESSED and key["variant"] != "conv"


def frames_of(chosen: Sequence[Case]) -> dict[str, pd.DataFrame]:
    """Tidy rows of each kind, without times; the index is the place among the cases."""
    frames: dict[str, pd.DataFrame] = {}
    for kind in dict.fromkeys(case.kind for case in chosen):
        rows = {i: {**case.notes, **case.key} for i, case in enumerate(chosen) if case.kind == kind}
        frame = pd.DataFrame.from_dict(rows, orient="index")
        missing = {c.name: c.default for c in KINDS[kind].columns if c.name not in frame}
        frames[kind] = frame.assign(**{**missing, "gpu": GPU.name})
    return frames


def kernel_seconds(kind: str, frame: pd.DataFrame, calibration: Calibration) -> pd.Series[float]:
    """Times of kernels as the calibration has them."""
    if kind == "memory_bound":
        frame = elementwise_sizes(frame.assign(time_us=1.0))
    else:
        frame = frame.assign(kind=kind)
    found = []
    for name, rows in frame.groupby("kind"):
        fit = calibration.find(str(name)) or calibration.find("reduction")
        assert fit is not None
        sizes = {size: rows[size].to_numpy(float) for size in SETUPS[str(name)].sizes}
        chip = chip_of(GPU, str(name), DTYPE)
        found.append(pd.Series(kernel_time_s(fit, sizes, chip, benchmark=True), rows.index))
    seconds = pd.concat(found)
    if "kernel" in frame:
        seconds *= np.where(frame.loc[seconds.index, "kernel"] == "sdpa-flash", 1.0, 2.5)
    return seconds


def request_numbers(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Times and memory of whole models as the calibration has them."""
    found = []
    for (runtime, stage), rows in frame.groupby(["runtime", "stage"]):
        group = (GPU.name, "", SOFTWARE, DTYPE, str(runtime), str(stage))
        made = predict(group, rows, GPU, str(path))
        found.append(made[["predicted_s", "predicted_memory_bytes"]])
    return pd.concat(found)


def method_seconds(frame: pd.DataFrame, path: Path) -> pd.Series[float]:
    """Times of methods as the calibration has them; 1 ms of those that no plan describes."""
    asked = []
    for row in frame.to_dict("records"):
        try:
            asked.append(request_of(row))
        except CostModelError:
            asked.append("")
    frame = frame.assign(compress=asked)
    known = frame[frame["compress"] != ""]
    group = OverheadGroup(GPU.name, "", SOFTWARE, DTYPE, "")
    made = predict_overheads(group, known, GPU, str(path))["predicted_s"]
    return made.reindex(frame.index, fill_value=1e-3)


def launch_seconds(row: pd.Series[Any]) -> float:
    """What a host of such costs shows in the suite ``launch``."""
    host, kernels = HOST[str(row["runtime"])], int(row["kernels"])
    return {
        "launch": host.launch_s,
        "sync": host.sync_s,
        "queued": 1e-6 * KERNEL_US + host.gap_s,
        "kernel": 1e-6 * KERNEL_US,
        "call": host.start_s + kernels * host.launch_s,
        "replay": host.sync_s + kernels * (1e-6 * KERNEL_US + host.gap_s),
    }.get(str(row["op"]), 1e-6)


def write_run(folder: Path, chosen: Sequence[Case], path: Path, seed: int) -> None:
    """Write timings as the harness does: predicted times with noise."""
    kinds = {case.kind for case in chosen}
    where = {"gpu": "NVIDIA H200", "source": "costmodel measure", "software": SOFTWARE}
    folder.mkdir(parents=True)
    store = Store(Layout(folder, kinds), kinds, where, {"run": f"r{seed}", "threads": 1}, 1e9)
    seconds, memory = predictions(chosen, path)
    for index, case in enumerate(chosen):
        noise = NOISE.get(case.kind, KERNEL_NOISE)
        # A row's noise is its own, whatever other cases there are.
        rng = np.random.default_rng([seed, zlib.crc32(repr(sorted(case.key.items())).encode())])
        time_us = 1e6 * seconds[index] * float(np.exp(noise * rng.standard_normal()))
        columns: dict[str, Any] = {
            "time_us": time_us, "time_us_mean": 1.01 * time_us, "time_us_min": 0.98 * time_us,
            "time_us_max": 1.2 * time_us, "time_us_std": 0.02 * time_us, "n_runs": 30,
        }  # fmt: skip
        if index in memory and case.key["stage"] == "ttft":
            columns["memory_bytes"] = memory[index]
        store.add(case, columns)
    store.record(f"r{seed}", MACHINE)
    store.flush()


MACHINE = {
    "gpu": "NVIDIA H200", "device": {"name": "NVIDIA H200", "driver": "580"},
    "host": {"cpu": "Xeon"}, "versions": {"torch": "2.11.0"}, "git_commit": "",
}  # fmt: skip
_PREDICTED: dict[Path, tuple[dict[int, float], dict[int, float]]] = {}


def predictions(chosen: Sequence[Case], path: Path) -> tuple[dict[int, float], dict[int, float]]:
    """Seconds and bytes by the place among the cases, computed once."""
    if path not in _PREDICTED:
        calibration = load_calibration(path, GPU)
        seconds: dict[Any, float] = {}
        memory: dict[Any, float] = {}
        for kind, frame in frames_of(chosen).items():
            if kind == "whole_model":
                numbers = request_numbers(frame, path)
                seconds |= numbers["predicted_s"].to_dict()
                memory = numbers["predicted_memory_bytes"].to_dict()
            elif kind == "compression":
                seconds |= method_seconds(frame, path).to_dict()
            elif kind == "launch":
                seconds |= frame.apply(launch_seconds, axis=1).to_dict()
            else:
                seconds |= kernel_seconds(kind, frame, calibration).to_dict()
        _PREDICTED[path] = (seconds, memory)
    return _PREDICTED[path]


@pytest.fixture(scope="session")
def loop() -> Iterator[Any]:
    """`benchmarks.loop`, which is no part of the installed package."""
    sys.path.insert(0, str(ROOT))
    yield lambda name: importlib.import_module(f"benchmarks.loop.{name}")
    sys.path.remove(str(ROOT))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, loop: Any) -> Made:
    """Two runs that differ in their noise alone."""
    folder = tmp_path_factory.mktemp("gpu")
    path = folder / "truth.yaml"
    write_calibration(truth(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_requests, "_memory_bytes", lambda device: 150e9)
        chosen = cases()
    runs = []
    for seed in (1, 2):
        work = folder / f"run{seed}"
        write_run(work / "timings", chosen, path, seed)
        options = {"model": MODEL, "commit": "abc", "dtype": DTYPE}
        session = [{"options": options, "steps": []}]
        (work / "session.json").write_text(json.dumps(session), encoding="utf-8")
        runs.append(folder / f"run{seed}.tar.gz")
        loop("packing").pack(work, runs[-1])
    return Made((runs[0], runs[1]), path)
