"""The command line of a copied folder: ``python -m reference``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checks import check
from .errors import MeasureError
from .measuring import measure
from .registry import load_suite, suite_names
from .request import Request
from .runner import LOST_DEVICE
from .supervise import supervise

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Measure what the words ask for.

    Parameters
    ----------
    words : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, 1 where nothing could be measured or a check failed, 2 for a bad request,
        75 where a new process can go on, 130 after Ctrl-C.
    """
    parser = _parser()
    given = parser.parse_args(words)
    if not (given.output or given.check):
        parser.error("the following arguments are required: -o/--output")
    on_gpu = given.device.startswith("cuda")
    if words is None and on_gpu and not (given.alone or given.check):
        package = __name__.rpartition(".harness.")[0]
        command = [sys.executable, "-m", package, *sys.argv[1:], "--alone"]
        return supervise(command, given.budget, sys.stderr)
    try:
        request = _request(given)
        if given.check:
            return check(request, sys.stdout)
        done = measure(request, sys.stderr)
    except MeasureError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    sys.stdout.write("\n".join(done.lines()) + "\n")
    return LOST_DEVICE if given.alone and done.outcome.broken else done.exit_code


def _request(given: argparse.Namespace) -> Request:
    return Request(
        output=Path(given.output or "."),
        device=given.device,
        suites=tuple(given.suite),
        dtypes=tuple(given.dtype),
        models=tuple(given.model),
        tokens=tuple(given.tokens),
        where=tuple(given.where),
        quick=given.quick,
        repeat=given.repeat,
        threads=given.threads,
        budget_s=given.budget,
        source=given.source,
        seed=given.seed,
    )


def _parser() -> argparse.ArgumentParser:
    suites = "\n".join(f"  {name:14} {load_suite(name).summary}" for name in suite_names())
    parser = argparse.ArgumentParser(
        prog="python -m reference",
        description="Time kernels on this machine.",
        epilog=f"suites:\n{suites}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-o", "--output", help="folder, or name of a .parquet file")
    add("--device", default="cpu", help="cpu, cuda or cuda:NUMBER (default: cpu)")
    several: dict[str, Any] = {"action": "extend", "default": [], "type": _several}
    add("--suite", **several, help="repeat or separate by commas (default: all)")
    add("--dtype", **several, help="fp32, fp16 or bf16; several as above")
    add("--model", **several, help="model whose shapes are timed; several as above")
    add(
        "--tokens", action="extend", type=_numbers, default=[],
        help="token count; several as above",
    )  # fmt: skip
    add(
        "--where", action="append", default=[], metavar="COLUMN=PATTERN",
        help="only such cases, as runtime=eager or compress=random*; repeat",
    )  # fmt: skip
    add("--check", action="store_true", help="say in seconds what can be measured, and stop")
    add("--quick", action="store_true", help="small sizes, few samples")
    add("--repeat", type=int, help="samples of each case (default: 30, quick 7)")
    add("--threads", type=int, help="threads of torch on a CPU")
    add("--budget", type=float, default=float("inf"), help="seconds after which no case starts")
    add("--source", default=Request.source, help="who measures, for the column of that name")
    add("--seed", type=int, default=0, help="of random inputs")
    add("--alone", action="store_true", help="do not start anew when a GPU was lost")
    return parser


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in _several(text)]
