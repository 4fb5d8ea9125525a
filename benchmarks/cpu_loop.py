"""Measure, calibrate, predict, compare: the whole loop on this machine's processor.

Kernels of a small LLaVA are timed at token counts that no request below has, a calibration is
fitted to them, and whole prefills with random weights are predicted and then held against
the clock, twice, so that the machine's own scatter stands beside the error.  The same commands
by hand are in docs/measure.md.  Figures are reported, never judged.

Needs the extras `measure` and `fit`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loop.requests import again, compared, judged, summary
from costmodel.calibration.user import OwnCalibration, calibrate
from costmodel.calibration.writing import write_calibration

MODEL = "llava-small"
KERNEL_TOKENS = (1, 8, 24, 48, 80, 112, 176, 320, 400, 577, 720, 900, 1200, 1600)
PROMPTS = (40, 64, 128, 256, 448, 640, 1024)
KERNEL_SUITES = ("gemm", "attention", "memory_bound")


def measure(out: Path, suites: Sequence[str], tokens: Sequence[int], *more: str) -> None:
    """Run the harness in a process of its own, as a user would."""
    command = [sys.executable, "-m", "costmodel.reference", "--device", "cpu", "--model", MODEL]
    command += ["--suite", ",".join(suites), "--tokens", ",".join(map(str, tokens))]
    subprocess.run([*command, *more, "-o", str(out)], check=True)


def eager_requests(folder: Path, own: Path, profile: Path) -> pd.DataFrame:
    """Return requests of the code that transformers runs, measured twice and predicted."""
    first, second = (folder / run / "whole_model.parquet" for run in ("first", "second"))
    table = again(judged(first, profile, own), second, profile).dropna(subset=["again_s"])
    return compared(table[table["runtime"] == "eager"])


def report(result: OwnCalibration, table: pd.DataFrame, tokens: pd.DataFrame) -> dict[str, Any]:
    """Return all figures."""
    plain = table[table["compress"].str.startswith("random") | (table["compress"] == "")]
    rest = table.drop(plain.index)
    kernels = {
        one.fit.kind: one.fit.error.mape_pct for one in result.fitted if one.fit.error is not None
    }
    return {
        "model": MODEL,
        "kernels_cv_mape_pct": kernels,
        "prefill_over_tokens": summary(plain) if len(plain) else {},
        "prefill_with_methods": summary(rest) if len(rest) else {},
        "one_more_token": summary(tokens) if len(tokens) else {},
    }


def show(figures: dict[str, Any], table: pd.DataFrame) -> None:
    """Print the tables."""
    print(f"\nKernels of {MODEL}, error on shapes left out of the fit (4 folds) [%]:")
    for kind, error in figures["kernels_cv_mape_pct"].items():
        print(f"  {kind:20s} {error:6.1f}")
    print("\nTime to first token [ms], token counts that no kernel was timed at:")
    print("  batch  text  compression                   run 1    run 2  predicted  error  in band")
    for row in table.sort_values(["batch", "text_tokens", "time_s"]).to_dict("records"):
        print(
            f"  {row['batch']:5d}  {row['text_tokens']:4d}  {row['compress'] or '-':26s}"
            f" {1e3 * row['time_s']:8.1f} {1e3 * row['again_s']:8.1f} "
            f"{1e3 * row['predicted_s']:10.1f} {row['error_pct']:+5.1f} %  "
            f"{'yes' if row['inside'] else 'no'}"
        )
    for name in ("prefill_over_tokens", "prefill_with_methods", "one_more_token"):
        if one := figures[name]:
            print(
                f"\n{name.replace('_', ' ')}: {one['requests']:.0f} requests, mean absolute error "
                f"{one['mape_pct']:.1f} %, bias {one['bias_pct']:+.1f} %, "
                f"{one['in_band_pct']:.0f} % inside the 90 % band; the two runs differ by "
                f"{one['run_to_run_pct']:.1f} %"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the files here; a temporary folder else")
    parser.add_argument("--budget", type=float, default=300, help="seconds of measuring, about")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        budget, threads = arguments.budget, ("--threads", str(arguments.threads))
        kernels, own = folder / "kernels", folder / "own.yaml"
        measure(kernels, KERNEL_SUITES, KERNEL_TOKENS, *threads, "--budget", f"{budget * 0.6:.0f}")
        for run in ("first", "second"):
            some = ("--quick", "--budget", f"{budget * 0.2:.0f}")
            measure(folder / run, ("prefill",), PROMPTS, *threads, *some)
        profile = kernels / "cpu.yaml"
        result = calibrate(sorted(kernels.glob("*.parquet")), profile)
        write_calibration(result.calibration, own)
        requests = eager_requests(folder, own, profile)
        table = requests[requests["stage"] == "ttft"]
        figures = report(result, table, requests[requests["stage"] == "tpot"])
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures, table)


if __name__ == "__main__":
    main()
