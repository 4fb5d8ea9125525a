"""Measure on a GPU elsewhere, then calibrate, predict and compare at home: two commands.

`measure` runs where the GPU is, from a checkout of the project: it needs torch, transformers,
pandas and pyarrow, and of the project only costmodel/reference.  It ends with one archive and a
summary.  `report` reads one or two archives, fits a calibration from the first run's kernels, and
writes tables of predicted against measured times.  docs/measure.md has the exact commands.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loop.packing import pack, summary_lines, unpack
from benchmarks.loop.plan import steps_for
from benchmarks.loop.session import Options, StepResult, run_session


def measure(given: argparse.Namespace) -> int:
    """Measure, and leave an archive that is complete after every step."""
    name = f"run{given.run}"
    work: Path = given.work or given.out / "work" / name
    for folder in (given.out, work):
        folder.mkdir(parents=True, exist_ok=True)
    if given.resume:
        unpack(given.resume, work)
    options = Options(
        work=work.resolve(), minutes=given.minutes, device=given.device, model=given.model,
        dtype=given.dtype or ("fp32" if given.device == "cpu" else "bf16"), run=given.run,
        commit=given.commit, threads=given.threads, quick=given.quick,
    )  # fmt: skip
    archive = given.out / f"{name}.tar.gz"

    def keep(results: list[StepResult]) -> None:
        pack(options.work, archive)

    results = run_session(steps_for(given.model, given.only), options, keep)
    lines = summary_lines(options.work)
    (given.out / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"\nwrote {archive}, {archive.stat().st_size / 1e6:.2f} MB")
    return int(all(one.code != 0 for one in results[2:]))


def report(given: argparse.Namespace) -> int:
    """Fit, judge and write."""
    from benchmarks.loop.report import write_report

    for line in write_report(given.runs, given.gpu, given.output, given.measurements):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers()
    one = commands.add_parser("measure", help="where the device is")
    one.set_defaults(run_command=measure)
    add = one.add_argument
    add("--out", type=Path, required=True, help="folder of the archive and the summary")
    add("--work", type=Path, help="folder of the timings; OUT/work/runN without")
    add("--minutes", type=float, required=True, help="for everything")
    add("--device", default="cuda", help="cuda, cuda:NUMBER or cpu")
    add("--run", type=int, choices=(1, 2), default=1, help="which of two independent runs")
    add("--model", default="llava-1.5-7b", help="whose shapes are timed")
    add("--dtype", help="bf16 by default, fp32 on a CPU")
    add("--only", action="append", default=[], help="a step or suite; repeat for several")
    add("--resume", type=Path, help="archive of a run that was cut off")
    add("--commit", default="", help="of the checkout, where it has no .git")
    add("--threads", type=int, default=0, help="of torch on a CPU")
    add("--quick", action="store_true", help="small sizes and few samples, to rehearse")
    two = commands.add_parser("report", help="where costmodel is installed")
    two.set_defaults(run_command=report)
    add = two.add_argument
    add("runs", type=Path, nargs="+", help="one archive, or two of independent runs")
    add("--gpu", help="profile of the device; the one a CPU run wrote without")
    add("-o", "--output", type=Path, required=True, help="folder of the results")
    add("--measurements", type=Path, help="parent folder of the small timing files; OUTPUT without")
    return parser


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    if not hasattr(given, "run_command"):
        parser.print_help()
        return 0
    code: int = given.run_command(given)
    return code


if __name__ == "__main__":
    sys.exit(main())
