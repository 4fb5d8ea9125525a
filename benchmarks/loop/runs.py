"""Runs that came home: their files, and small copies of them to keep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.loop.packing import unpack

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "keep", "open_run"]

REQUESTS, METHODS = "whole_model", "compression"
_KEPT_NAMES = {REQUESTS: "requests"}
_IDENTITY = "case"


@dataclass(frozen=True)
class Run:
    """Files of one run.

    Attributes
    ----------
    files : dict of str to Path
        Timings by kind.
    machine : dict
        What was recorded of device, host and software.
    options : dict
        What was asked for.
    failures : tuple of dict
        Cases that could not be measured.
    profile : Path, optional
        Profile that a run on a CPU wrote.
    """

    files: dict[str, Path]
    machine: dict[str, Any]
    options: dict[str, str]
    failures: tuple[dict[str, Any], ...]
    profile: Path | None

    @property
    def kernels(self) -> list[Path]:
        """Files that a calibration is fitted to."""
        return [path for kind, path in self.files.items() if kind not in (REQUESTS, METHODS)]

    def frame(self, kind: str) -> pd.DataFrame:
        """Return the rows of a kind as they were written; empty where there are none."""
        import pandas as pd

        return pd.read_parquet(self.files[kind]) if kind in self.files else pd.DataFrame()


def open_run(path: Path, folder: Path) -> Run:
    """Return the run of an archive, which is unpacked into `folder`, or of a session's folder.

    Raises
    ------
    FileNotFoundError
        If there are no timings.
    """
    if not path.is_dir():
        unpack(path, folder)
        path = folder
    timings = path / "timings"
    files = {file.stem: file for file in sorted(timings.glob("*.parquet"))}
    if not files:
        raise FileNotFoundError(f"{path}: holds no timings")
    machines = json.loads((timings / "machine.json").read_text(encoding="utf-8"))
    record = path / "session.json"
    sessions = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    failed = timings / "failures.jsonl"
    lines = failed.read_text(encoding="utf-8").splitlines() if failed.exists() else []
    profile = timings / "cpu.yaml"
    return Run(
        files=files,
        machine=list(machines.values())[-1],
        options=sessions[-1]["options"] if sessions else {},
        failures=tuple(json.loads(line) for line in lines),
        profile=profile if profile.exists() else None,
    )


def keep(run: Run, folder: Path, ending: str = "") -> dict[str, Path]:
    """Copy the timings of a run without what only the harness needs, compressed.

    Parameters
    ----------
    run : Run
        Its files are left as they are.
    folder : Path
        Made if it is not there.
    ending : str
        Of the names: ``_again`` for a second run.

    Returns
    -------
    dict of str to Path
        Written files by kind.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for kind, path in run.files.items():
        table = pq.read_table(path)
        names = [name for name in table.column_names if name != _IDENTITY]
        made = folder / f"{_KEPT_NAMES.get(kind, kind)}{ending}.parquet"
        pq.write_table(table.select(names), made, compression="zstd", compression_level=12)
        written[kind] = made
    return written
