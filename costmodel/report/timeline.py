r"""The predicted prefill as a sequence in time: every execution of every operator, and waits.

The time model says how long each operator takes and, for each stage, how long the GPU waits for
the host in all.  The order is that of the stages, and of a layer's operators within it; a layer
is one execution of neighbouring operators that repeat equally often.  Waits are spread: the first
launch of a stage waits for the start of the stage, the rest evenly over the launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from costmodel.accounting import op_rows
from costmodel.case import Case
from costmodel.results import STAGES, OpRow
from costmodel.studies.prefill import prefill
from costmodel.timing.host import HostQueue
from costmodel.timing.kernels.launch import HostCosts, stage_time_s

__all__ = ["Step", "Timeline", "timeline"]

_LAYERS = {"decoder": "layer", "vision": "block"}
_MOST_STEPS = 50_000


@dataclass(frozen=True)
class Step:
    """One execution of an operator, or several where unrolling would give too many.

    Attributes
    ----------
    name : str
        For example ``layer 7: qkv_proj``.
    row : OpRow
        Totals over all executions.
    count : float
        Executions in this step.
    wait_s : float
        Time that the GPU waits for the host before it [s].
    time_s : float
        On the GPU, or on the host for operators that run there [s].
    launch_s : float
        Time of the host to start its kernels [s].
    """

    name: str
    row: OpRow
    count: float
    wait_s: float
    time_s: float
    launch_s: float

    @property
    def on_host(self) -> bool:
        """Whether the CPU computes it."""
        return self.row.kind == "host"

    @property
    def syncs(self) -> float:
        """How often the host waits for its result."""
        return self.row.host_syncs / self.row.repeat * self.count


@dataclass(frozen=True)
class Timeline:
    """A predicted prefill in order.

    Attributes
    ----------
    steps : tuple of Step
    ttft_s : float
        Time to the first token, which is the sum of waits and times [s].
    weights_bytes : float
        Of one device [B].
    """

    steps: tuple[Step, ...]
    ttft_s: float
    weights_bytes: float


@dataclass(frozen=True)
class _Waits:
    """Waits of a queue: before its first launch, and before each."""

    first_s: float
    each_s: float
    costs: HostCosts


def timeline(case: Case) -> Timeline:
    """Return the timeline of a case's prefill.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> found = timeline(prepare("llama-2-7b", "a100-80gb-sxm", text_tokens=64))
    >>> [step.name for step in found.steps if "layer 7:" in step.name][1]
    'layer 7: qkv_proj'
    >>> abs(sum(step.wait_s + step.time_s for step in found.steps) / found.ttft_s - 1) < 1e-12
    True
    """
    found = prefill(case)
    rows = op_rows(found.evaluation, found.times)
    queue_of = {row: queue for queue in found.times.queues for row in queue.rows}
    waits = {queue.rows: _waits(queue, rows) for queue in found.times.queues}
    steps: list[Step] = []
    layers: dict[str, int] = {}
    started: set[tuple[int, ...]] = set()
    for stage in STAGES:
        own = [i for i, row in enumerate(rows) if row.stage == stage and row.repeat > 0]
        for (_, repeat), group in groupby(own, key=lambda i: (_prefix(rows[i]), rows[i].repeat)):
            for name, index, count in _unrolled(list(group), repeat, rows, layers):
                queue = queue_of.get(index)
                known = waits[queue.rows] if queue is not None else None
                steps.append(_step(name, rows[index], count, known, queue, started))
    return Timeline(tuple(steps), float(found.ttft_s), float(found.memory.weights))


def _prefix(row: OpRow) -> str:
    return row.name.rpartition(".")[0]


def _unrolled(
    group: Sequence[int], repeat: float, rows: Sequence[OpRow], layers: dict[str, int]
) -> Iterator[tuple[str, int, float]]:
    whole = int(repeat)
    prefix = _prefix(rows[group[0]])
    family = prefix.partition(".")[0].rstrip("0123456789_[]")
    # The embedding of patches is in the tower, but in no block.
    layer = family in _LAYERS and any("attention" in rows[index].name for index in group)
    if repeat != whole or whole * len(group) > _MOST_STEPS or (whole == 1 and not layer):
        for index in group:
            suffix = f" x {repeat:g}" if repeat != 1 else ""
            yield rows[index].name + suffix, index, repeat
        return
    for number in range(whole):
        if layer:
            position = layers.get(family, 0)
            layers[family] = position + 1
            head = f"{_LAYERS[family]} {position}: "
            names = [head + rows[i].name[len(prefix) + 1 :] for i in group]
        else:
            names = [f"{rows[i].name} #{number}" for i in group]
        yield from ((name, index, 1.0) for name, index in zip(names, group, strict=True))


def _waits(queue: HostQueue, rows: Sequence[OpRow]) -> _Waits:
    own = [rows[index] for index in queue.rows]
    busy_s, launches = sum(row.time_s for row in own), sum(row.launches for row in own)
    syncs = sum(row.host_syncs for row in own)
    exposed = float(stage_time_s(busy_s, launches, syncs, queue.costs))
    costs = queue.costs
    first = min(exposed, costs.start_s + costs.launch_s)
    return _Waits(first, (exposed - first) / launches if launches else 0.0, costs)


def _step(
    name: str, row: OpRow, count: float, waits: _Waits | None, queue: HostQueue | None,
    started: set[tuple[int, ...]],
) -> Step:  # fmt: skip
    share = count / row.repeat
    wait = launch = 0.0
    if waits is not None and queue is not None:
        launches = row.launches * share
        wait, launch = waits.each_s * launches, waits.costs.launch_s * launches
        if queue.rows not in started:
            started.add(queue.rows)
            wait += waits.first_s
            launch += waits.costs.start_s
    return Step(name, row, count, wait, row.time_s * share, launch)
