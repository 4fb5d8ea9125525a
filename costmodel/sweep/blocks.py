"""From a spec to blocks: one model, GPU and method each, with the points they span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.case import Case, prepare
from costmodel.compression.method import Context
from costmodel.errors import InputError, UnsupportedError
from costmodel.sweep.design import design
from costmodel.sweep.kept import Option, options_for
from costmodel.sweep.spec import SweepSpec

__all__ = ["Block", "Grid", "LeftOut", "Plan", "plan_sweep"]

Ints = npt.NDArray[np.intp]

_CATEGORIES = (
    "model", "gpu", "image", "visual_tokens", "dtype", "weights_dtype", "kv_dtype", "runtime",
    "attention", "tp", "time_model", "calibration", "output_tokens", "method",
)  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Points that are all combinations: batch outermost, then counts, text innermost.

    Attributes
    ----------
    batch, text_tokens : tuple of int
    """

    batch: tuple[int, ...]
    text_tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Points of one case, which only differ in numbers.

    Attributes
    ----------
    options : dict
        What `costmodel.prepare` takes beside the numbers.
    labels : dict
        Columns that are the same at every point.
    counts : tuple of Option
        The method at each count.
    spec : SweepSpec
        The whole sweep, for its design.
    grid : Grid or None
        None for a sampled design.
    tokens_in : int
        Visual tokens of a request before compression.
    """

    options: dict[str, Any]
    labels: dict[str, Any]
    counts: tuple[Option, ...]
    spec: SweepSpec = field(repr=False)
    grid: Grid | None
    tokens_in: int

    @cached_property
    def points(self) -> int:
        """Number of points."""
        if self.grid is not None:
            return len(self.grid.batch) * len(self.counts) * len(self.grid.text_tokens)
        return len(self.sampled[0])

    @cached_property
    def sampled(self) -> tuple[Ints, Ints, Ints]:
        """Batch, slot of the count, and text tokens of every point of a sampled design."""
        columns = design(self.spec)
        batch, text = (columns[name].astype(np.intp) for name in ("batch", "text_tokens"))
        slots = np.zeros(len(batch), dtype=np.intp)
        asked = [option.asked for option in self.counts]
        if asked == [0]:
            return batch, slots, text
        wanted = self._asked(columns)
        order = np.argsort(asked)
        places = np.searchsorted(asked, wanted, sorter=order).clip(max=len(asked) - 1)
        slots = order[places]
        held = np.asarray(asked)[slots] == wanted
        return batch[held], slots[held], text[held]

    def _asked(self, columns: dict[str, npt.NDArray[np.float64]]) -> Ints:
        if "visual_tokens_kept" in columns:
            return columns["visual_tokens_kept"].astype(np.intp)
        return counts_at(columns["retention"], self.context)

    @cached_property
    def context(self) -> Context:
        """What the method sees."""
        case = self.case()
        return Context(case.model, case.images, case.deployment)

    def case(self) -> Case:
        """Return the case at its first point."""
        first = self.counts[0].compress
        if self.grid is not None:
            batch, text = self.grid.batch[0], self.grid.text_tokens[0]
        else:
            batch = text = 1
        compress = None if first == "none" else first
        return prepare(**self.options, batch=batch, text_tokens=text, compress=compress)


@dataclass(frozen=True)
class LeftOut:
    """Points that a sweep does not have, and why.

    Attributes
    ----------
    what : str
        Model, method and whatever else decides.
    reason : str
    points : int
        How many.
    """

    what: str
    reason: str
    points: int


@dataclass(frozen=True)
class Plan:
    """Everything a sweep will compute.

    Attributes
    ----------
    spec : SweepSpec
    blocks : tuple of Block
    left_out : tuple of LeftOut
    """

    spec: SweepSpec
    blocks: tuple[Block, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def points(self) -> int:
        """Number of all points."""
        return sum(block.points for block in self.blocks)


def counts_at(retention: npt.NDArray[np.float64], context: Context) -> Ints:
    """Return `counts_of` of every share."""
    images = sum(group.units for group in context.images)
    return np.maximum(1, np.rint(retention * context.features / images)).astype(np.intp)


def plan_sweep(spec: SweepSpec) -> Plan:
    """Return all blocks of a sweep, and what is left out.

    Raises
    ------
    InputError
        If nothing is left.
    """
    blocks: list[Block] = []
    lost: dict[tuple[str, str], int] = {}
    found: dict[Any, Any] = {}
    for values in product(*(getattr(spec, name) for name in _CATEGORIES)):
        at = dict(zip(_CATEGORIES, values, strict=True))
        for block in _blocks(spec, at, lost, found):
            blocks.append(block)
    left_out = tuple(LeftOut(what, why, points) for (what, why), points in lost.items())
    if not blocks:
        reasons = "; ".join(f"{item.what}: {item.reason}" for item in left_out[:3])
        raise InputError("spec", "no points", f"at least one possible combination ({reasons})")
    return Plan(spec, tuple(blocks), left_out)


def _blocks(
    spec: SweepSpec, at: dict[str, Any], lost: dict[tuple[str, str], int], found: dict[Any, Any]
) -> Iterator[Block]:
    options = {name: value for name, value in at.items() if name not in ("method", "image")}
    options["images"] = at["image"]
    name = f"{at['model']}, {at['method']}"
    try:
        case = prepare(**options, text_tokens=1)
        if case.time_model == "ideal" and "ttft_low_s" in spec.outputs:
            raise InputError("bands", case.time_model, "a time model that has them: calibrated")
        context = Context(case.model, case.images, case.deployment)
        counts = _wanted(spec, context)
        key = (at["model"], at["image"], at["visual_tokens"], at["method"], case.deployment)
        if key not in found:
            found[key] = _resolved(at["method"], context, case, counts)
        possible, reasons = found[key]
    except InputError as error:
        _lose(lost, f"{name}, {at['gpu']}", _reason(error), _points_lost(spec))
        return
    for count, reason in reasons.items():
        _lose(lost, name, reason, _points_lost(spec, context, count))
    families: dict[Any, list[Option]] = {}
    for option in possible:
        families.setdefault(option.family, []).append(option)
    labels = _labels(spec, at, case)
    tokens = case.layout.tokens if case.layout else 0
    grid = None
    if spec.sample is None:
        grid = Grid(spec.batch, spec.text_tokens)
    for members in families.values():
        # Families hold formulas: far too large to send around.
        plain = tuple(replace(option, family=None) for option in members)
        yield Block(options, labels, plain, spec, grid, tokens)


def _resolved(
    method: str, context: Context, case: Case, counts: Sequence[int] | None
) -> tuple[list[Option], dict[int, str]]:
    if method == "none":
        tokens = case.layout.tokens if case.layout else 0
        return [Option(0, "none", tokens, "none")], {}
    if not case.images:
        raise UnsupportedError(
            "method", method, f"none: {case.model.name} has no visual tokens here"
        )
    return options_for(method, context, counts)


def _wanted(spec: SweepSpec, context: Context) -> tuple[int, ...] | None:
    """Return the counts that each image is asked to keep; None for none."""
    name = "visual_tokens_kept" if spec.visual_tokens_kept is not None else "retention"
    if name not in spec.numbers or not context.images:
        return None
    values = np.unique(design(spec)[name]) if spec.sample else np.array(spec.numbers[name])
    counts = values.astype(np.intp) if name != "retention" else counts_at(values, context)
    return tuple(dict.fromkeys(counts.tolist()))


def _points_lost(spec: SweepSpec, context: Context | None = None, count: int = 0) -> int:
    """Return the points of a whole combination, or those at one count."""
    if spec.sample is None:
        plain = len(spec.batch) * len(spec.text_tokens)
        kept = spec.visual_tokens_kept or spec.retention or (0,)
        return plain if context else plain * len(kept)
    columns = design(spec)
    if context is None:
        return len(columns["batch"])
    if "visual_tokens_kept" in columns:
        return int((columns["visual_tokens_kept"] == count).sum())
    return int((counts_at(columns["retention"], context) == count).sum())


def _lose(lost: dict[tuple[str, str], int], what: str, reason: str, points: int) -> None:
    lost[what, reason] = lost.get((what, reason), 0) + points


def _reason(error: InputError) -> str:
    return f"{error.field} {error.value!r}; expected {error.expected}"


def _labels(spec: SweepSpec, at: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return the columns that are constant in a block: always these, others where given."""
    run = case.deployment
    size = [f"{width}x{height}" for width, height in case.workload.images]
    default = case.model.default_image
    if not size and case.images and at["visual_tokens"] is None and default is not None:
        size = [f"{default[0]}x{default[1]}"]
    labels: dict[str, Any] = {
        "model": at["model"], "gpu": at["gpu"], "method": at["method"],
        "image": "+".join(size) or "none", "dtype": run.dtype, "runtime": run.runtime, "tp": run.tp,
    }  # fmt: skip
    more = {
        "weights_dtype": run.weights_dtype, "kv_dtype": run.kv_dtype, "attention": run.attention,
        "time_model": case.time_model,
        "calibration": run.calibration or case.gpu.default_calibration or "none",
        "output_tokens": case.workload.output_tokens,
    }  # fmt: skip
    return labels | {name: value for name, value in more.items() if name in spec.given}
