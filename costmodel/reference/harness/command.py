"""The command line of a copied folder: ``python -m reference``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import MeasureError
from .measuring import measure
from .registry import load_suite, suite_names
from .request import Request

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
        Exit code: 0, 1 where nothing could be measured, 2 for a bad request, 130 after Ctrl-C.
    """
    given = _parser().parse_args(words)
    try:
        done = measure(
            Request(
                output=Path(given.output),
                device=given.device,
                suites=tuple(given.suite),
                dtypes=tuple(given.dtype),
                models=tuple(given.model),
                tokens=tuple(given.tokens),
                quick=given.quick,
                repeat=given.repeat,
                threads=given.threads,
                budget_s=given.budget,
                source=given.source,
                seed=given.seed,
            ),
            sys.stderr,
        )
    except MeasureError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    sys.stdout.write("\n".join(done.lines()) + "\n")
    return done.exit_code


def _parser() -> argparse.ArgumentParser:
    suites = "\n".join(f"  {name:14} {load_suite(name).summary}" for name in suite_names())
    parser = argparse.ArgumentParser(
        prog="python -m reference",
        description="Time kernels on this machine.",
        epilog=f"suites:\n{suites}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-o", "--output", required=True, help="folder, or name of a .parquet file")
    add("--device", default="cpu", help="cpu, cuda or cuda:NUMBER (default: cpu)")
    several: dict[str, Any] = {"action": "extend", "default": [], "type": _several}
    add("--suite", **several, help="repeat or separate by commas (default: all)")
    add("--dtype", **several, help="fp32, fp16 or bf16; several as above")
    add("--model", **several, help="model whose shapes are timed; several as above")
    add(
        "--tokens", action="extend", type=_numbers, default=[],
        help="token count; several as above",
    )  # fmt: skip
    add("--quick", action="store_true", help="small sizes, few samples")
    add("--repeat", type=int, help="samples of each case (default: 30, quick 7)")
    add("--threads", type=int, help="threads of torch on a CPU")
    add("--budget", type=float, default=float("inf"), help="seconds after which no case starts")
    add("--source", default=Request.source, help="who measures, for the column of that name")
    add("--seed", type=int, default=0, help="of random inputs")
    return parser


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in _several(text)]
