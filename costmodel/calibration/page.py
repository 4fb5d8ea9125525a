"""Writes the accuracy page: ``python -m costmodel.calibration.page TIMINGS... -o PAGE``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from costmodel.calibration.accuracy import AccuracyRow
from costmodel.calibration.loading import load_timings
from costmodel.calibration.page_rows import page_rows
from costmodel.calibration.page_tables import (
    BEGIN,
    END,
    PREFILL_TARGETS,
    calibration_tables,
    missed,
    prefill_table,
    summary,
    target_table,
)
from costmodel.calibration.prefill_sum import PrefillSum, mean_error_pct, prefill_sums
from costmodel.catalog.calibrations import list_calibrations, load_calibration
from costmodel.catalog.hardware import list_gpus, load_gpu

__all__ = ["calibration_section", "main", "page"]

_HEAD = """# Accuracy

How far predicted kernel times are from measured ones. Written by
`python -m costmodel.calibration.page TIMINGS... -o docs/accuracy.md` from the reference
measurements and the shipped calibrations; a test fails when the calibrations change and this
page does not.

Errors are in % of the measured time, over kernels of at least 10 us unless a row says otherwise.
MAPE is the mean absolute error, p90 its 90th percentile, "Roofline" the MAPE of the datasheet
roofline on the same rows.
Figures are for shapes that were not fitted: whole (n, k), head configurations or model widths are
left out together, or values of m where a row says so. The form of the models and a few settings
were chosen on such left-out groups, so that a new lab's shapes may do somewhat worse. A dash means
that nothing was measured, or no goal was set.

## Who measured what

"""

_GAPS = """## Gaps

- No attention was measured on A40, A30 and RTX A6000: it is transferred from A100, H100 and L40S.
- No encoder attention was measured on A100: it is transferred from H100.
- No memory-bound kernels were measured on H200 and L40S: they are transferred from H100.
- Gathers were measured as embedding look-ups of Vidur only; gather of visual tokens, scatter,
  top-k and argmin were measured nowhere.
- Host overheads come from public reports of two devices, not from timings of this project.
- RMSNorm was measured at widths 3584 and 4096 only: other widths are extrapolated.
- TensorRT-LLM's attention is the least certain: its timings do not name the kernel that ran.
- One lab's numbers do not hold in another: see "fitted on" in the table. The wider of the two
  intervals of an estimate covers that.

"""

_PREFILL = """## Prefill of Llama-2-7B on A100 80GB

Milliseconds, 16 bits, batch 1, all 32 layers without embedding and head. "Measured" is the sum of
the medians of a layer's kernels: four products, two norms, rotary embedding, activation and twice
the addition as Vidur measured them, causal attention as AIConfigurator measured vLLM 0.14
(interpolated at 640). "Shapes left out" is predicted by fits that saw none of these (n, k), no
32 heads of 128 and no row of Llama-2-7B; "Shipped" by the calibration as it is, which was fitted
on these kernels too; "Roofline" is the datasheet's, kernel by kernel. The other columns are peers
run 2026-11.

"""


_GOALS = """Goals and errors are MAPE / p90 in %, and a goal is met if both are; a single number
asks for the MAPE alone. Nothing is judged where a dash is."""


def page(rows: Sequence[AccuracyRow], sums: Sequence[PrefillSum]) -> str:
    """Return the whole page.

    Parameters
    ----------
    rows : sequence of AccuracyRow
        Quantities with their targets.
    sums : sequence of PrefillSum
        Prefill by length.

    Returns
    -------
    str
        Markdown.
    """
    wanted = f"## Asked and reached\n\n{summary(rows)}\n\n{_GOALS}"
    return "".join(
        (
            _HEAD, _measured(), _PREFILL, prefill_table(sums), "\n", _prefill_met(sums), "\n",
            wanted, "\n\n", target_table(rows), "\n### Missed\n\n", missed(rows), "\n", _GAPS,
            calibration_section(),
        )
    )  # fmt: skip


def calibration_section() -> str:
    """Return the part of the page that follows from the shipped calibrations alone."""
    text = "## Shipped calibrations\n\nErrors on groups left out [%]; the band is measured over "
    text += "predicted time, of the smallest and the largest sizes.\n\n"
    return f"{BEGIN}\n{text}{calibration_tables()}{END}\n"


def _measured() -> str:
    fitted = sorted(
        {
            fit.device
            for name in list_calibrations()
            for fit in load_calibration(name, load_gpu(name.partition(".")[0])).kinds
            if fit.origin == "fitted"
        }
    )
    others = [gpu for gpu in list_gpus() if gpu not in fitted]
    text = "No device was measured by this project yet: all timings are other people's.\n"
    text += f"Measured by others: {', '.join(fitted)} (Vidur, AIConfigurator, a fork of Vidur).\n"
    return text + f"Not measured at all: {', '.join(others)}.\n\n"


def _prefill_met(sums: Sequence[PrefillSum]) -> str:
    errors = [abs(item.unseen_error_pct) for item in sums]
    reached = {"each": max(errors), "mean": mean_error_pct(errors)}
    text = ""
    for name, (at_most, aim) in PREFILL_TARGETS.items():
        met = "met" if reached[name] <= at_most else "**missed**"
        aimed = "reached" if reached[name] <= aim else "not reached"
        what = "largest error" if name == "each" else "mean error"
        text += f"- Shapes left out, {what}: {reached[name]:.1f} %; at most {at_most:g} % asked, "
        text += f"{met}; {aim:g} % aimed at, {aimed}.\n"
    return text


def _write(path: Path, text: str) -> None:
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> None:
    """Write the page from timing files."""
    parser = argparse.ArgumentParser(prog="python -m costmodel.calibration.page")
    parser.add_argument("timings", nargs="+", metavar="TIMINGS")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    start = time.monotonic()
    timings, _ = load_timings(options.timings)
    print("prefill", file=sys.stderr, flush=True)
    sums = prefill_sums(timings)
    _write(options.output, page(list(page_rows(timings)), sums))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
