"""What clustering costs against the prefill that it saves, on GPUs by the model.

For LLaVA-1.5-7B and its 576 tokens: overhead of Cluster & Aggregate by implementation,
iterations and batch, beside the time that the language model saves; above 100 % clustering does
not pay.  `--measured FILE` adds what the suite `compression` measured beside what the model
says of the same device.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from costmodel import estimate
from costmodel.calibration.judging import validate_timings
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec

MODEL = "llava-1.5-7b"
TEXT = 64
GPUS = ("a100-80gb-sxm", "rtx-a6000", "h100-sxm")
IMPLEMENTATIONS = ("eager", "fused", "compiled", "sklearn")


def predicted(gpu: str, impl: str, k: int, iterations: int, batch: int) -> dict[str, Any]:
    """Return overhead and saving of one setting [s]."""
    made = estimate(
        MODEL, gpu, text_tokens=TEXT, batch=batch,
        compress=f"cluster:k={k},iterations={iterations},impl={impl},check=false",
    )  # fmt: skip
    free, saved = free_choice(MODEL, gpu, k, batch)
    overhead = made.time_s["ttft"] - free
    return {
        "gpu": gpu, "impl": impl, "k": k, "iterations": iterations, "batch": batch,
        "overhead_s": overhead, "saved_s": saved, "share_pct": 100 * overhead / saved,
    }  # fmt: skip


def free_choice(
    model: str | ModelSpec, gpu: str | HardwareProfile, k: int, batch: int, **options: Any
) -> tuple[float, float]:
    """Return the time to first token with k tokens picked by index, and what that saves [s]."""
    free = estimate(model, gpu, text_tokens=TEXT, batch=batch, compress=f"spatial:k={k}", **options)
    assert free.baseline is not None
    return free.time_s["ttft"], free.baseline.time_s["ttft"] - free.time_s["ttft"]


def table() -> list[dict[str, Any]]:
    """Return all settings."""
    return [
        predicted(gpu, impl, k, iterations, batch)
        for gpu in GPUS
        for impl in IMPLEMENTATIONS
        for batch in (1, 8)
        for k in (20, 64, 144)
        for iterations in (10, 30)
    ]


def measured(path: Path, gpu: str | Path, calibration: str | Path | None) -> list[dict[str, Any]]:
    """Return measured clusterings beside their prediction."""
    groups = validate_timings([path], gpu=gpu, calibration=calibration).groups
    rows: list[dict[str, Any]] = []
    for group in groups:
        if "cluster" in group.stack.kind:
            records = group.points.to_dict("records")
            rows += [{str(name): value for name, value in one.items()} for one in records]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, help="compression.parquet of costmodel measure")
    parser.add_argument("--gpu", help="its device, name or YAML file")
    parser.add_argument("--calibration", help="its calibration")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = table()
    own = measured(arguments.measured, arguments.gpu, arguments.calibration) if (
        arguments.measured
    ) else []  # fmt: skip
    if arguments.json:
        print(json.dumps({"predicted": rows, "measured": own}, indent=2, default=str))
        return
    print("| GPU | Implementation | Batch | k | Iterations | Overhead ms | Saved ms | Share |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| `{row['gpu']}` | {row['impl']} | {row['batch']} | {row['k']} | "
            f"{row['iterations']} | {1e3 * row['overhead_s']:.1f} | {1e3 * row['saved_s']:.1f} | "
            f"{row['share_pct']:.0f} % |"
        )
    if own:
        print("\n| Implementation | Batch | k | Width | Settings | Measured ms | Predicted ms |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for row in own:
            print(
                f"| {row['variant']} | {row['batch']} | {row['kept']} | {row['width']} | "
                f"{row['params']} | {1e3 * row['time_s']:.1f} | {1e3 * row['predicted_s']:.1f} |"
            )


if __name__ == "__main__":
    main()
