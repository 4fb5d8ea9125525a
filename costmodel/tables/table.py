"""Exact tables of a case: the same times as the direct path, looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from costmodel.case import Case
from costmodel.errors import InputError, UnknownNameError, UnsupportedError
from costmodel.program import Phase
from costmodel.results import STAGES, stage_of
from costmodel.tables.band_table import BandKind, BandTable
from costmodel.tables.count_table import COUNTS, CountTable
from costmodel.tables.domain import AXIS_NAMES, Domain
from costmodel.tables.lattice import Lattice
from costmodel.tables.lookup import Array, Chunk
from costmodel.tables.pass_table import PassTable
from costmodel.tables.quantities import BANDS, NAMES, direct_values, fill
from costmodel.tables.tabulation import TooLarge

__all__ = ["Table", "tabulate"]

_CHUNK = 8192
# Rows of a dozen columns per point: fewer points fill the cache.
_CHUNK_BANDS = 2048
# Rows take little time per point, so that each call should have many.
_CHUNK_ROWS = 65536
_ROWS = (*STAGES, "host_overhead", "ttft")
_Points = tuple[npt.ArrayLike | None, npt.ArrayLike | None, npt.ArrayLike | None]


def tabulate(
    case: Case,
    *,
    batch: npt.ArrayLike | None = None,
    text_tokens: npt.ArrayLike | None = None,
    visual_tokens: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = np.float64,
    max_entries: int = 4_000_000,
) -> Table:
    """Tabulate the times of a case over all points that three axes span.

    Prefill times depend on whole numbers only, and no operator on all of them: the decoder
    on the batch and the length of the prompt, the vision side on the batch and maybe the
    visual tokens.  A point is therefore a sum of few entries of small tables, equal to what
    `evaluate_grid` computes but for rounding, and takes some nanoseconds.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.
    batch, text_tokens, visual_tokens : array_like, optional
        All values that points may have, for example ``range(1, 65)``; by default that of
        the case.  `visual_tokens` are those that enter the language model, marker tokens
        included.  If the case compresses, the method is asked to keep that number, of each
        image the same, and its own cost follows.  If it does not, or the method keeps every
        token, the vision side stays as prepared.
    dtype : dtype
        ``float64`` or ``float32`` of tables and results.
    max_entries : int
        Entries of the largest table; beyond it, and for numbers that are not whole, points
        are evaluated directly, thousands of times slower.

    Returns
    -------
    Table

    Raises
    ------
    InputError
        If a value is negative or not finite, an axis is empty, or the method cannot keep
        such a number of tokens.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress="cluster:k=64")
    >>> table = tabulate(case, batch=[1, 8], text_tokens=range(1, 65), visual_tokens=[64, 144])
    >>> table.ttft_s(batch=8, text_tokens=[32, 64], visual_tokens=[[64], [144]]).shape
    (2, 2)
    >>> from costmodel.points import evaluate_grid
    >>> bool(abs(table.ttft_s(1, 64, 144) / evaluate_grid(case, k=144).time_s["ttft"] - 1) < 1e-12)
    True
    """
    domain = Domain.of(
        case, batch=batch, text_tokens=text_tokens, visual_tokens=visual_tokens
    )  # fmt: skip
    return Table(domain, np.dtype(dtype), max_entries)


class Table:
    """Times of one model, GPU and method over points of batch, text and visual tokens.

    Points are given as numbers or arrays that broadcast; None is the value of the case.
    Tables of stages and TTFT are made at once, those of bands and TPOT on first use.

    Attributes
    ----------
    axes : dict of str to ndarray
        Values that points may have, by ``batch``, ``text_tokens``, ``visual_tokens``.
    """

    def __init__(self, domain: Domain, dtype: np.dtype[Any], max_entries: int) -> None:
        if dtype not in (np.float64, np.float32):
            raise UnknownNameError("dtype", str(dtype), ["float64", "float32"])
        self.axes = domain.values
        self._domain = domain
        self._dtype = dtype
        self._most = max_entries
        self._prefill = self._pass("prefill")

    @property
    def direct(self) -> bool:
        """Whether points are evaluated one by one, for want of tables."""
        return self._prefill is None

    @property
    def nbytes(self) -> int:
        """Bytes of the tables that were made."""
        made = [
            self._prefill,
            *(self.__dict__.get(name) for name in ("_decode", "_bands", "_counts")),
        ]
        return sum(table.nbytes for table in made if table is not None)

    def ttft_s(
        self,
        batch: npt.ArrayLike | None = None,
        text_tokens: npt.ArrayLike | None = None,
        visual_tokens: npt.ArrayLike | None = None,
    ) -> Array:
        """Return the time to the first token [s].

        Parameters
        ----------
        batch, text_tokens, visual_tokens : array_like of int, optional
            Points of the domain.

        Returns
        -------
        ndarray
            Of the points' shape.

        Raises
        ------
        InputError
            If a point has a value that the table was not built for.
        """
        return self._total(self._prefill, "prefill", (batch, text_tokens, visual_tokens))

    def tpot_s(
        self,
        batch: npt.ArrayLike | None = None,
        text_tokens: npt.ArrayLike | None = None,
        visual_tokens: npt.ArrayLike | None = None,
    ) -> Array:
        """Return the mean time per output token, for the output tokens of the case [s].

        Parameters
        ----------
        batch, text_tokens, visual_tokens : array_like of int, optional
            As in `ttft_s`.

        Returns
        -------
        ndarray
            Of the points' shape.
        """
        return self._total(self._decode, "decode", (batch, text_tokens, visual_tokens))

    def stages(
        self,
        batch: npt.ArrayLike | None = None,
        text_tokens: npt.ArrayLike | None = None,
        visual_tokens: npt.ArrayLike | None = None,
    ) -> dict[str, Array]:
        """Return the times of the stages, the exposed host time and their sum [s].

        Parameters
        ----------
        batch, text_tokens, visual_tokens : array_like of int, optional
            As in `ttft_s`.

        Returns
        -------
        dict of str to ndarray
            ``vision_encoder``, ``projector``, ``compression``, ``llm_prefill``, ``lm_head``,
            ``host_overhead`` and ``ttft``.
        """
        table = self._prefill

        def looked_up(chunk: Chunk, outs: Sequence[Array]) -> None:
            if table is not None:
                table.stages_s(chunk, dict(zip(_ROWS, outs, strict=False)))
                np.add(outs[0], outs[1], out=outs[-1])
                for more in outs[2:-1]:
                    np.add(outs[-1], more, out=outs[-1])

        def directly(at: Mapping[str, Array], outs: Sequence[Array]) -> None:
            evaluation, times = self._domain.times("prefill", at)
            for stage, out in zip(STAGES, outs, strict=False):
                mask = [stage_of(op) == stage for op in evaluation.ops]
                out[...] = evaluation.total(times.op_s, mask)
            outs[-2][...] = times.host_overhead_s
            outs[-1][...] = np.sum(outs[:-1], axis=0)

        points = (batch, text_tokens, visual_tokens)
        found = self._points(points, [self._dtype] * len(_ROWS), table, looked_up, directly)
        return dict(zip(_ROWS, found, strict=True))

    def ttft_band(
        self,
        batch: npt.ArrayLike | None = None,
        text_tokens: npt.ArrayLike | None = None,
        visual_tokens: npt.ArrayLike | None = None,
        *,
        kind: BandKind = "any_stack",
    ) -> tuple[Array, Array]:
        """Return the bounds of the time to the first token [s].

        Parameters
        ----------
        batch, text_tokens, visual_tokens : array_like of int, optional
            As in `ttft_s`.
        kind : {"any_stack", "same_stack"}
            For any lab and software, or for those of the calibration.

        Returns
        -------
        tuple of ndarray
            Lower and upper bound.

        Raises
        ------
        UnsupportedError
            If the time model has no bands.
        """
        if kind not in get_args(BandKind):
            raise UnknownNameError("kind", kind, get_args(BandKind))
        self._check_bands()
        bands = self._bands

        def looked_up(chunk: Chunk, outs: Sequence[Array]) -> None:
            if bands is not None:
                bands.bounds_s(chunk, kind, *outs)

        def directly(at: Mapping[str, Array], outs: Sequence[Array]) -> None:
            _, times = self._domain.times("prefill", at)
            outs[0][...], outs[1][...] = times.low_s[kind], times.high_s[kind]

        points = (batch, text_tokens, visual_tokens)
        table = self._prefill if bands is not None else None
        low, high = self._points(
            points, [self._dtype] * 2, table, looked_up, directly, size=_CHUNK_BANDS
        )
        return low, high

    def quantities(
        self,
        names: Sequence[str],
        batch: npt.ArrayLike | None = None,
        text_tokens: npt.ArrayLike | None = None,
        visual_tokens: npt.ArrayLike | None = None,
    ) -> dict[str, Array]:
        """Return several quantities at once; counts are float64 whatever the tables are.

        Parameters
        ----------
        names : sequence of str
            Of `costmodel.tables.quantities.NAMES`: stages, ``ttft``, bounds and ``tpot`` [s],
            ``flops_...`` [FLOP], memory [B].
        batch, text_tokens, visual_tokens : array_like of int, optional
            As in `ttft_s`.

        Returns
        -------
        dict of str to ndarray
            Of the points' shape.

        Raises
        ------
        UnknownNameError
            If a name is none of them.
        """
        self._check(names)
        ready = self._ready(names)

        def looked_up(chunk: Chunk, outs: Sequence[Array]) -> None:
            self._fill(chunk, dict(zip(names, outs, strict=True)))

        def at_points(at: Mapping[str, Array], outs: Sequence[Array]) -> None:
            direct_values(self._domain, at, dict(zip(names, outs, strict=True)))

        found = self._points(
            (batch, text_tokens, visual_tokens), [self._dtype_of(name) for name in names],
            self._prefill if ready else None, looked_up, at_points, size=self._size(names),
        )  # fmt: skip
        return dict(zip(names, found, strict=True))

    def rows(
        self,
        outs: Mapping[str, Array],
        batch: Array,
        visual_tokens: Array,
        text_tokens: Array,
    ) -> None:
        """Write quantities at rows of points: fastest where text tokens are consecutive.

        Parameters
        ----------
        outs : mapping of str to ndarray
            By name as in `quantities`; of shape (rows, columns), C order, of the dtype of
            the tables, counts float64.
        batch, visual_tokens : ndarray of int
            Of each row.
        text_tokens : ndarray of int
            Of each column.

        Raises
        ------
        InputError
            If a point has a value that the table was not built for.
        """
        names = list(outs)
        self._check(names)
        if self._prefill is None or not self._ready(names):
            found = self.quantities(names, batch[:, None], text_tokens, visual_tokens[:, None])
            for name, out in outs.items():
                out[...] = found[name]
            return
        size, columns = _CHUNK_BANDS if BANDS[0] in names else _CHUNK_ROWS, len(text_tokens)
        lattice = Lattice(self._prefill.lookup, size, self._dtype)
        step = max(1, size // columns)
        rows, columns_ = (
            [np.asarray(x, dtype=np.intp) for x in (batch, visual_tokens)],
            np.asarray(text_tokens, dtype=np.intp),
        )
        for start in range(0, columns, size):
            across = slice(start, start + size)
            for first in range(0, len(batch), step):
                down = slice(first, first + step)
                lattice.load_rows(rows[0][down], rows[1][down], columns_[across])
                self._fill_lattice(lattice, {n: out[down, across] for n, out in outs.items()})

    def _fill_lattice(self, lattice: Lattice, outs: Mapping[str, Array]) -> None:
        flat = {
            name: out.reshape(-1) if out.flags.c_contiguous else np.empty(out.size, out.dtype)
            for name, out in outs.items()
        }
        self._fill(lattice, flat)
        for name, out in outs.items():
            if not out.flags.c_contiguous:
                out[...] = flat[name].reshape(out.shape)

    def _fill(self, chunk: Chunk, outs: Mapping[str, Array]) -> None:
        if self._prefill is None:
            return
        fill(
            chunk, outs, self._prefill,
            self._decode if "tpot" in outs else None,
            self._bands if BANDS[0] in outs else None,
            self._counts if set(outs) & set(COUNTS) else None,
        )  # fmt: skip

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in NAMES:
                raise UnknownNameError("quantity", name, NAMES)
        if set(names) & set(BANDS):
            self._check_bands()
            if not set(BANDS) <= set(names):
                raise InputError("quantity", names, "both bounds or none")

    def _ready(self, names: Sequence[str]) -> bool:
        """Whether there are tables of all these."""
        return (
            self._prefill is not None
            and ("tpot" not in names or self._decode is not None)
            and (not set(names) & set(BANDS) or self._bands is not None)
            and (not set(names) & set(COUNTS) or self._counts is not None)
        )

    def _size(self, names: Sequence[str]) -> int:
        return _CHUNK_BANDS if BANDS[0] in names else _CHUNK

    def _dtype_of(self, name: str) -> np.dtype[Any]:
        return np.dtype(np.float64) if name in COUNTS else self._dtype

    def _total(self, table: PassTable | None, phase: Phase, points: _Points) -> Array:
        def looked_up(chunk: Chunk, outs: Sequence[Array]) -> None:
            if table is not None:
                table.total_s(chunk, outs[0])

        def directly(at: Mapping[str, Array], outs: Sequence[Array]) -> None:
            evaluation, times = self._domain.times(phase, at)
            outs[0][...] = evaluation.total(times.op_s) + times.host_overhead_s

        return self._points(points, [self._dtype], table, looked_up, directly)[0]

    def _check_bands(self) -> None:
        if not self._domain.times("prefill", {})[1].parts:
            model = self._domain.case.time_model
            raise UnsupportedError("time-model", model, "calibrated: it has bands")

    @cached_property
    def _decode(self) -> PassTable | None:
        return self._pass("decode")

    @cached_property
    def _counts(self) -> CountTable | None:
        if self._prefill is None:
            return None
        try:
            return CountTable(self._domain, self._prefill.lookup, most=self._most)
        except TooLarge:
            return None

    @cached_property
    def _bands(self) -> BandTable | None:
        if self._prefill is None:
            return None
        return BandTable(self._domain, self._prefill, most=self._most, dtype=self._dtype)

    def _pass(self, phase: Phase) -> PassTable | None:
        if not self._domain.whole:
            return None
        try:
            lookup = self._prefill.lookup if phase == "decode" and self._prefill else None
            return PassTable(self._domain, phase, most=self._most, dtype=self._dtype, lookup=lookup)
        except TooLarge:
            return None

    def _points(
        self,
        points: _Points,
        dtypes: Sequence[np.dtype[Any]],
        table: PassTable | None,
        looked_up: Callable[[Chunk, Sequence[Array]], None],
        directly: Callable[[Mapping[str, Array], Sequence[Array]], None],
        size: int = _CHUNK,
    ) -> list[Array]:
        """Fill results for all points, a chunk at a time."""
        given = [self._given(name, x) for name, x in zip(AXIS_NAMES, points, strict=True)]
        exact = table is not None and all(array.dtype.kind in "iu" for array in given)
        into = np.dtype(np.intp if exact else np.float64)
        settings: dict[str, Any] = {
            "flags": ["external_loop", "buffered", "zerosize_ok"],
            "op_flags": [["readonly"]] * len(given) + [["writeonly", "allocate"]] * len(dtypes),
            "op_dtypes": [into] * len(given) + list(dtypes),
            "order": "C",
            "casting": "same_kind",
            "buffersize": size,
        }
        iterator = np.nditer([*given, *[None] * len(dtypes)], **settings)
        chunk = Chunk(table.lookup, size, self._dtype) if table is not None and exact else None
        with iterator:
            for arrays in iterator if iterator.itersize else ():
                here, outs = arrays[: len(given)], arrays[len(given) :]
                if chunk is not None:
                    chunk.load(here)
                    looked_up(chunk, outs)
                else:
                    at = self._domain.symbols(dict(zip(AXIS_NAMES, here, strict=True)))
                    directly(at, outs)
            return list(iterator.operands[len(given) :])

    def _given(self, name: str, value: npt.ArrayLike | None) -> Array:
        """Return the points' values of one axis, whole numbers as integers."""
        axis = self.axes[name]
        if value is None:
            if len(axis) > 1:
                raise InputError(name, None, "a value: the table has several")
            value = axis[0]
        array = np.asarray(value)
        integer = array.dtype.kind in "iu"
        if integer and not self.direct:
            return array
        inside = array.min(initial=axis[0]) >= axis[0] and array.max(initial=axis[-1]) <= axis[-1]
        if not inside:
            raise InputError(name, value, f"numbers from {axis[0]:g} to {axis[-1]:g}")
        whole = array.astype(np.intp)
        return whole if integer or (whole == array).all() else array
