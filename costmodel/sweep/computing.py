"""The numbers of a part: tables made once per block, then looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.catalog.hardware import load_host
from costmodel.sweep.blocks import Block
from costmodel.sweep.columns import OUTPUTS
from costmodel.sweep.parts import Part, Piece
from costmodel.tables.count_table import COUNTS
from costmodel.tables.table import Table, tabulate
from costmodel.timing.device import resolve_device

__all__ = ["Computer", "number_columns"]

Array = npt.NDArray[Any]

_UNTIMED = {*COUNTS, "fits", "retention"}


def number_columns(
    blocks: Sequence[Block], outputs: Sequence[str], precision: str
) -> dict[str, Any]:
    """Return the dtype of every column of numbers, in order.

    Parameters
    ----------
    blocks : sequence of Block
        All blocks of the sweep.
    outputs : sequence of str
        Columns that are computed.
    precision : str
        Of times.
    """
    options = [option for block in blocks for option in block.counts]
    whole = all(float(option.kept).is_integer() for option in options)
    columns: dict[str, Any] = {"batch": np.int32, "text_tokens": np.int32}
    if any(option.asked for option in options):
        columns["visual_tokens_asked"] = np.int32
    columns["visual_tokens_kept"] = np.int32 if whole else np.float64
    for name in outputs:
        quantity = OUTPUTS[name].quantity
        if quantity == "fits":
            columns[name] = np.bool_
        elif quantity == "retention" or quantity in COUNTS:
            columns[name] = np.float64
        else:
            columns[name] = np.dtype(precision).type
    return columns


class Computer:
    """Computes parts; keeps the tables of the block it worked on last.

    Parameters
    ----------
    columns : mapping of str to dtype
        Columns of numbers, as `number_columns` returns them.
    outputs : sequence of str
        Those that are computed.
    """

    def __init__(self, columns: Mapping[str, Any], outputs: Sequence[str]) -> None:
        self.columns = columns
        wanted = {name: OUTPUTS[name].quantity for name in outputs}
        self._quantities = dict.fromkeys(
            quantity for quantity in wanted.values() if quantity not in ("fits", "retention")
        )
        if "fits" in wanted:
            self._quantities["memory_total"] = None
        self._wanted = wanted
        times = [columns[name] for name, q in wanted.items() if q not in _UNTIMED]
        self._precision = np.dtype(times[0] if times else np.float64)
        self._at: tuple[int, _Ready] | None = None
        self._buffers: dict[str, Array] = {}

    def part(
        self, part: Part, blocks: Mapping[int, Block], *, fresh: bool = True
    ) -> dict[str, Array]:
        """Return the columns of numbers of a part.

        Parameters
        ----------
        part : Part
        blocks : mapping of int to Block
            Those of its pieces.
        fresh : bool
            Whether the arrays are the caller's; otherwise the next call writes over them,
            which saves the system from clearing new memory.
        """
        outs = {
            name: np.empty(part.points, dtype) if fresh else self._buffer(name, part.points)
            for name, dtype in self.columns.items()
        }
        done = 0
        for piece in part.pieces:
            size = piece.stop - piece.start
            rows = slice(done, done + size)
            block = blocks[piece.block]
            self._piece(piece, block, {name: out[rows] for name, out in outs.items()})
            done += size
        return outs

    def _buffer(self, name: str, points: int) -> Array:
        if len(self._buffers.get(name, ())) < points:
            self._buffers[name] = np.empty(points, self.columns[name])
        return self._buffers[name][:points]

    def _piece(self, piece: Piece, block: Block, outs: Mapping[str, Array]) -> None:
        if self._at is None or self._at[0] != piece.block:
            # The old tables go before the new ones are made.
            self._at = None
            self._at = (piece.block, _Ready(block, self._precision))
        ready = self._at[1]
        held: dict[str, Array] = {}
        for name, quantity in self._wanted.items():
            if quantity in self._quantities:
                held[quantity] = outs[name]
        for quantity in self._quantities:
            if quantity not in held:
                held[quantity] = np.empty(piece.stop - piece.start)
        if block.grid is not None:
            self._grid(ready, block, piece, outs, held)
        else:
            self._sampled(ready, block, piece, outs, held)
        if "fits" in outs:
            np.less_equal(held["memory_total"], ready.capacity_bytes, out=outs["fits"])
        if "retention" in outs:
            np.divide(outs["visual_tokens_kept"], max(block.tokens_in, 1), out=outs["retention"])

    def _grid(
        self, ready: _Ready, block: Block, piece: Piece, outs: Mapping[str, Array],
        held: Mapping[str, Array],
    ) -> None:  # fmt: skip
        """Fill rows of a grid: a part of the first one, whole ones, a part of the last."""
        columns, done = len(ready.text), 0
        start = piece.start
        while start < piece.stop:
            row, first = divmod(start, columns)
            rest = piece.stop - start
            if first or rest < columns:
                rows, last = 1, min(columns, first + rest)
            else:
                rows, last = rest // columns, columns
            size = rows * (last - first)
            batch, slots = divmod(np.arange(row, row + rows), len(block.counts))
            shape = (rows, last - first)
            here = slice(done, done + size)
            text = ready.text[first:last]
            _spread(outs, here, shape, ready.batch[batch][:, None], text, ready, slots[:, None])
            ready.table.rows(
                {name: out[here].reshape(shape) for name, out in held.items()},
                ready.batch[batch], ready.visual[slots], text,
            )  # fmt: skip
            start, done = start + size, done + size

    def _sampled(
        self, ready: _Ready, block: Block, piece: Piece, outs: Mapping[str, Array],
        held: Mapping[str, Array],
    ) -> None:  # fmt: skip
        batch, slots, text = (column[piece.start : piece.stop] for column in block.sampled)
        _spread(outs, slice(None), batch.shape, batch, text, ready, slots)
        found = ready.table.quantities(list(held), batch, text, ready.visual[slots])
        for name, out in held.items():
            out[...] = found[name]


class _Ready:
    """The tables of a block, and its axes as arrays."""

    def __init__(self, block: Block, precision: np.dtype[Any]) -> None:
        case = block.case()
        self.kept = np.array([option.kept for option in block.counts])
        self.asked = np.array([option.asked for option in block.counts])
        self.batch, self.text = np.zeros(0, np.intp), np.zeros(0, np.intp)
        if block.grid is not None:
            self.batch, self.text = (
                np.array(values, dtype=np.intp)
                for values in (block.grid.batch, block.grid.text_tokens)
            )
            axes: tuple[Any, Any] = (self.batch, self.text)
        else:
            batch, _, text = block.sampled
            axes = (np.unique(batch), np.unique(text))
        several = len(self.kept) > 1
        self.table: Table = tabulate(
            case, batch=axes[0], text_tokens=axes[1],
            visual_tokens=self.kept if several else None, dtype=precision,
        )  # fmt: skip
        # A single count stays as prepared, whatever it is called.
        own = self.table.axes["visual_tokens"]
        self.visual = self.kept.astype(np.intp) if several else own
        device = resolve_device(case.gpu, load_host(), case.deployment)
        self.capacity_bytes = device.capacity_bytes


def _spread(
    outs: Mapping[str, Array], rows: slice, shape: tuple[int, ...], batch: Array, text: Array,
    ready: _Ready, slots: Array,
) -> None:  # fmt: skip
    outs["batch"][rows].reshape(shape)[...] = batch
    outs["text_tokens"][rows].reshape(shape)[...] = text
    outs["visual_tokens_kept"][rows].reshape(shape)[...] = ready.kept[slots]
    if "visual_tokens_asked" in outs:
        outs["visual_tokens_asked"][rows].reshape(shape)[...] = ready.asked[slots]
