"""The file of a sweep: grown part by part beside its place, renamed when it is complete.

Parts are appended in order to ``NAME.partial``; ``NAME.journal`` has a line for each that is
complete there.  After a kill, what the journal does not know of is cut off, and the rest is
computed: nothing is lost or doubled.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from costmodel.errors import InputError
from costmodel.sweep.encoding import Encoded, Format

__all__ = ["Output"]


class Output:
    """A file that grows.

    Parameters
    ----------
    target : Path
        Where the complete file goes.
    form : Format
        Of the file.
    digest : str
        Of the spec and the version, so that only the same sweep goes on.
    resume : bool
        Whether to go on where an earlier run stopped.

    Raises
    ------
    InputError
        If the earlier run had another spec, or its files cannot be used.
    """

    def __init__(self, target: Path, form: Format, digest: str, *, resume: bool) -> None:
        self._target, self._form, self._digest = target, form, digest
        self.partial = target.with_name(target.name + ".partial")
        self.journal = target.with_name(target.name + ".journal")
        self._footers: list[bytes] = []
        self._positions: list[int] = []
        self.points = 0
        self._size = 0
        if resume and self.journal.exists() and self.partial.exists():
            self._continue()
        else:
            self._begin()

    @property
    def done(self) -> int:
        """Number of parts that are complete."""
        return len(self._positions)

    def append(self, part: Encoded) -> None:
        """Write the next part."""
        self._write(part.data)
        position = self._size
        self._footers.append(part.footer)
        self._positions.append(position)
        self._size += len(part.data)
        self.points += part.points
        # The journal is true of the partial file only if that was written first.
        self._note(
            {
                "position": position, "size": len(part.data), "points": part.points,
                "crc": zlib.crc32(part.data), "footer": part.footer.hex(),
            }
        )  # fmt: skip

    def finish(self, metadata: Mapping[str, str]) -> int:
        """Complete the file and put it in its place; return its size [B]."""
        self._write(self._form.finish(self._footers, self._positions, metadata))
        size = self._file.tell()
        os.fsync(self._file.fileno())
        self.close()
        self.partial.replace(self._target)
        self.journal.unlink()
        return size

    def close(self) -> None:
        """Close the files; what is there can be gone on with."""
        self._file.close()
        self._lines.close()

    def _begin(self) -> None:
        start = self._form.start()
        with contextlib.suppress(FileNotFoundError):
            self.journal.unlink()
        self._file: BinaryIO = self.partial.open("wb", buffering=0)
        self._lines: BinaryIO = self.journal.open("wb", buffering=0)
        self._write(start)
        self._size = len(start)
        self._note({"spec": self._digest, "start": len(start)})

    def _continue(self) -> None:
        lines = self.journal.read_bytes().split(b"\n")
        # The last is empty, or was cut off.
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines[:-1]]
        if not entries:
            self._begin()
            return
        if entries[0]["spec"] != self._digest:
            raise InputError(
                "resume", os.fspath(self._target),
                "the spec and version that the unfinished result was begun with; without "
                "--resume it is replaced",
            )  # fmt: skip
        self._size = entries[0]["start"]
        kept = [lines[0]]
        self._file = self.partial.open("r+b", buffering=0)
        for line, entry in zip(lines[1:-1], entries[1:], strict=True):
            self._file.seek(entry["position"])
            data = self._file.read(entry["size"])
            if len(data) != entry["size"] or zlib.crc32(data) != entry["crc"]:
                break
            kept.append(line)
            self._footers.append(bytes.fromhex(entry["footer"]))
            self._positions.append(entry["position"])
            self._size = entry["position"] + entry["size"]
            self.points += entry["points"]
        self._file.truncate(self._size)
        self._file.seek(self._size)
        # Lines that no longer hold go too, atomically.
        renewed = self.journal.with_name(self.journal.name + ".new")
        renewed.write_bytes(b"\n".join(kept) + b"\n")
        renewed.replace(self.journal)
        self._lines = self.journal.open("ab", buffering=0)

    def _note(self, entry: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(entry).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # A raw file may take less than it is given.
            view = view[self._file.write(view) :]
