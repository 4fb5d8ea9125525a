"""Chrome traces of ``torch.profiler``, recorded with ``record_shapes=True``.

Matrix products and scaled-dot-product attention become rows.  An operator that
calls another one of these counts once, with the outer one's shape.  Its time is
that of the GPU kernels launched in it; in a trace without any kernel, as of a
CPU, the operator's own.  Durations are in microseconds.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.calibration.attention_kinds import attention_parts
from costmodel.calibration.profiler_numbers import union_length
from costmodel.calibration.reading import Head, Hints, Part, Reading
from costmodel.calibration.report import Tally
from costmodel.calibration.torch_shapes import OPERATORS, Call, UnfitError
from costmodel.errors import SpecError

__all__ = ["SUFFIXES", "TITLE", "matches", "read"]

TITLE = "torch.profiler's Chrome trace with record_shapes=True"
SUFFIXES = (".json", ".json.gz")

MAX_BYTES = 2_000_000_000
"""Longest trace; as objects of Python it takes about ten times as much memory."""

_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_ON_HOST = ("cpu_op", *_LAUNCHES)
# Older versions of PyTorch write the first one without the capital.
_LINKS = {"External id": "id", "external id": "id", "correlation": "correlation"}
_INPUTS = ("Input Dims", "Input type", "Concrete Inputs")


def matches(path: Path, head: Head) -> bool:
    """Return whether the beginning is that of a Chrome trace."""
    return head.text.lstrip().startswith("{") and '"traceEvents"' in head.text


def _load(path: Path) -> dict[str, Any]:
    opener = gzip.open if path.name.lower().endswith(".gz") else Path.open
    try:
        with opener(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        limit = f"{MAX_BYTES / 1e9:.0f} GB"
        raise SpecError(f"{path}: longer than {limit} unpacked; record fewer steps")
    try:
        trace = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not JSON, perhaps cut off: {error}") from None
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        raise SpecError(f"{path}: no list traceEvents")
    return trace


@dataclass
class _Operator:
    """An outermost operator and what can link kernels to it."""

    row: int
    name: str
    end: float
    own_us: float
    args: dict[str, Any]
    links: set[tuple[str, Any]] = field(default_factory=set)


def _events(trace: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the complete events with sane times, and their numbers in the trace."""
    for row, event in enumerate(trace["traceEvents"], start=1):
        if (
            isinstance(event, dict)
            and event.get("ph") == "X"
            and isinstance(event.get("ts"), int | float)
            and isinstance(event.get("dur"), int | float)
            and isinstance(event.get("args", {}), dict)
        ):
            yield row, event


def _links(event: dict[str, Any]) -> set[tuple[str, Any]]:
    args = event.get("args", {})
    return {(link, args[name]) for name, link in _LINKS.items() if args.get(name)}


def _operators(trace: dict[str, Any]) -> list[_Operator]:
    """Return the outermost operators of every thread, with the links of all they contain."""
    threads: dict[tuple[Any, Any], list[tuple[float, float, int, dict[str, Any]]]]
    threads = defaultdict(list)
    for row, event in _events(trace):
        if event.get("cat") in _ON_HOST:
            key = (event.get("pid"), event.get("tid"))
            threads[key].append((event["ts"], -event["dur"], row, event))
    found: list[_Operator] = []
    for events in threads.values():
        inside: _Operator | None = None
        for start, minus_length, row, event in sorted(events, key=lambda item: item[:3]):
            if inside is None or start >= inside.end:
                inside = None
                if event.get("cat") == "cpu_op" and event.get("name") in OPERATORS:
                    end = start - minus_length
                    inside = _Operator(row, event["name"], end, -minus_length, event["args"])
                    found.append(inside)
            if inside is not None:
                inside.links |= _links(event)
    return found


def _kernels(trace: dict[str, Any]) -> dict[tuple[str, Any], list[tuple[float, float]]]:
    """Return start and end of the kernels that each link leads to."""
    found: dict[tuple[str, Any], list[tuple[float, float]]] = defaultdict(list)
    for _, event in _events(trace):
        if event.get("cat") in _ON_GPU:
            for link in _links(event):
                found[link].append((event["ts"], event["ts"] + event["dur"]))
    return found


def _gpu(trace: dict[str, Any], hints: Hints) -> str | None:
    devices = trace.get("deviceProperties") or []
    names = {device.get("name") for device in devices if isinstance(device, dict)}
    return str(names.pop()) if len(names) == 1 else hints.gpu


def read(path: Path, hints: Hints) -> Reading:
    """Return one row for each outermost operator.

    Raises
    ------
    SpecError
        If the file is too long, not JSON, or has no operator that is read.
    """
    import pandas as pd

    trace, tally = _load(path), Tally(path)
    operators, kernels, gpu = _operators(trace), _kernels(trace), _gpu(trace, hints)
    if not kernels and any(event.get("cat") in _LAUNCHES for _, event in _events(trace)):
        raise SpecError(f"{path}: kernels were launched but not recorded; profile with CUDA too")
    if not operators:
        raise SpecError(f"{path}: none of the operators {', '.join(OPERATORS)}")
    rows: dict[str, dict[int, dict[str, Any]]] = {"gemm": {}, "attention": {}}
    for operator in operators:
        call = Call(*(operator.args.get(name) or [] for name in _INPUTS))
        spans = {span for link in operator.links for span in kernels.get(link, ())}
        if kernels and not spans:
            tally.add(f"{operator.name}: no GPU kernel belongs to it", [operator.row])
            continue
        try:
            shape = OPERATORS[operator.name](call)
        except UnfitError as error:
            tally.add(f"{operator.name}: {error}", [operator.row])
            continue
        bounds = np.array(sorted(spans), dtype=np.float64).reshape(-1, 2)
        time_us = union_length(bounds[:, 0], bounds[:, 1]) if kernels else operator.own_us
        software = "torch" if kernels else "torch (host time of operators)"
        rows[shape.kind][operator.row] = {
            **shape.columns,
            "time_us": time_us,
            "source": hints.source or "torch.profiler",
            "software": hints.software or software,
            **({"gpu": gpu} if gpu else {}),
        }
    frames = {kind: pd.DataFrame.from_dict(r, orient="index") for kind, r in rows.items() if r}
    parts = [Part("gemm", frames["gemm"])] if "gemm" in frames else []
    if "attention" in frames:
        parts += attention_parts(frames["attention"])
    return Reading(parts, tally.problems())
