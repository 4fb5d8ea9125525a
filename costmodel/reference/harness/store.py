"""Rows on disk: a journal that loses at most the case in flight, and one parquet for each kind.

A measured row is appended to the journal and synced before the next case starts.  Every few
seconds, and at the end, all rows are written to the parquet files, each of which is replaced as a
whole, and the journal is emptied.  Whatever a killed run left in the journal is read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .case import Case, Value
from .errors import MeasureError
from .files import replace_file

__all__ = ["METADATA", "WHERE", "Layout", "Store"]

METADATA = b"costmodel.runs"
"""Key of the machine records in the metadata of a parquet file, JSON by run."""

WHERE = ("gpu", "source", "software")
"""Columns of every row that say where it was measured."""

Row = dict[str, Any]

_CASE = "case"
_MACHINE = "machine.json"


class Layout:
    """Names of the files of one output.

    Parameters
    ----------
    output : Path
        A folder, or a name that ends in ``.parquet``: then the files of several kinds are
        ``name.KIND.parquet``, and that of one kind is the name itself.
    kinds : iterable of str
        Kinds that will be measured.

    Attributes
    ----------
    folder : Path
        Where all files are.
    one_kind : bool
        Whether there is one file, named as asked.

    Examples
    --------
    >>> Layout(Path("out"), ["gemm", "launch"]).parquet("gemm").as_posix()
    'out/gemm.parquet'
    >>> Layout(Path("t.parquet"), ["gemm", "launch"]).parquet("gemm").as_posix()
    't.gemm.parquet'
    >>> Layout(Path("t.parquet"), ["gemm"]).parquet("gemm").as_posix()
    't.parquet'
    """

    def __init__(self, output: Path, kinds: Iterable[str]) -> None:
        self._one_file = output.suffix == ".parquet"
        self.folder = output.parent if self._one_file else output
        self._stem = output.stem if self._one_file else ""
        self.one_kind = self._one_file and len(set(kinds)) == 1

    def parquet(self, kind: str) -> Path:
        """Return the file of a kind."""
        if self.one_kind:
            return self.folder / f"{self._stem}.parquet"
        return self.beside(f"{kind}.parquet")

    def beside(self, name: str) -> Path:
        """Return a file that belongs to the output."""
        return self.folder / (f"{self._stem}.{name}" if self._one_file else name)

    def prepare(self) -> None:
        """Make the folder, and try to write there before anything is measured.

        Raises
        ------
        MeasureError
            If that is not possible.
        """
        probe = self.beside(f"probe-{os.getpid()}.tmp")
        try:
            if self._one_file and not self.folder.is_dir():
                raise MeasureError(f"output: there is no folder {str(self.folder)!r}")
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            where = str(self.folder)
            raise MeasureError(f"output: {where!r} cannot be written: {error.strerror}") from None


class Store:
    """Rows of one output.

    Parameters
    ----------
    layout : Layout
        Where they go.
    kinds : iterable of str
        Kinds that will be measured.
    where : mapping of str to str
        Values of `WHERE` for all rows of this run.
    run : mapping
        Columns of all rows of this run that tell nothing apart.
    flush_s : float
        How often parquet files are written [s].
    """

    def __init__(
        self,
        layout: Layout,
        kinds: Iterable[str],
        where: Mapping[str, str],
        run: Mapping[str, Value],
        flush_s: float = 10.0,
    ) -> None:
        self._layout, self._where, self._run = layout, dict(where), dict(run)
        self._flush_s, self._flushed = flush_s, time.monotonic()
        self._journal = layout.beside("journal.jsonl")
        self._rows: dict[str, dict[str, Row]] = {}
        self._records = self._read_records()
        self._changed: set[str] = set()
        for kind in sorted(set(kinds)):
            self._read_parquet(kind)
        self._read_journal()

    def has(self, case: Case) -> bool:
        """Whether there is a row of the case from the same machine and software."""
        return self.identity(case) in self._rows.get(case.kind, {})

    def add(self, case: Case, measured: Mapping[str, Any]) -> None:
        """Write a row; when this returns, a kill does not lose it."""
        row = {**self._where, **case.key, **measured, "suite": case.suite, **case.notes}
        row |= {**self._run, "measured_at": round(time.time(), 3), _CASE: self.identity(case)}
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": case.kind, "row": row}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._keep(case.kind, row)
        if time.monotonic() - self._flushed >= self._flush_s:
            self.flush()

    def record(self, run: str, machine: Mapping[str, Any]) -> None:
        """Set what is known about a run, and write it beside the timings."""
        self._records[run] = json.loads(json.dumps(machine, default=str))
        text = json.dumps(self._records, indent=2) + "\n"
        replace_file(self._layout.beside(_MACHINE), text.encode())

    def rows(self, kind: str) -> list[Row]:
        """Return all rows of a kind, those of earlier runs included."""
        return list(self._rows.get(kind, {}).values())

    def rows_there(self, kind: str) -> list[Row]:
        """Return all rows of a kind, also of one that this run does not measure."""
        if kind not in self._rows and not self._layout.one_kind:
            # A file of somebody else holds nothing of ours, and is not written to.
            with contextlib.suppress(MeasureError):
                self._read_parquet(kind)
        return self.rows(kind)

    def flush(self) -> list[Path]:
        """Write the parquet files of kinds with new rows, and empty the journal."""
        written = [self._write_parquet(kind) for kind in sorted(self._changed)]
        self._changed.clear()
        with contextlib.suppress(FileNotFoundError):
            self._journal.unlink()
        self._flushed = time.monotonic()
        return written

    def identity(self, case: Case) -> str:
        """Return what two measurements of the same thing share."""
        return json.dumps({**self._where, **case.key}, sort_keys=True)

    def _keep(self, kind: str, row: Row) -> None:
        self._rows.setdefault(kind, {})[row[_CASE]] = row
        self._changed.add(kind)

    def _read_records(self) -> dict[str, Any]:
        try:
            found = json.loads(self._layout.beside(_MACHINE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return {}
        return dict(found)

    def _read_journal(self) -> None:
        if not self._journal.exists():
            return
        for line in self._journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                # The line that a kill cut off: the case in flight.
                continue
            self._keep(entry["kind"], entry["row"])
        self.flush()

    def _read_parquet(self, kind: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._layout.parquet(kind)
        if not path.exists():
            return
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise MeasureError(f"output: {path} is there and no parquet file: {error}") from None
        metadata = table.schema.metadata or {}
        if METADATA not in metadata or _CASE not in table.column_names:
            raise MeasureError(f"output: {path} is there and was not written by this command")
        self._records = {**json.loads(metadata[METADATA]), **self._records}
        for row in table.to_pylist():
            kept = {name: value for name, value in row.items() if value is not None}
            self._rows.setdefault(kind, {})[kept[_CASE]] = kept

    def _write_parquet(self, kind: str) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = self.rows(kind)
        # Rows of one kind may differ in notes, and the first alone would decide the columns.
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        records = json.dumps(self._records)
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({METADATA: records}), sink)
        path = self._layout.parquet(kind)
        replace_file(path, sink.getvalue().to_pybytes())
        return path
