"""What a suite provides: cases, each of which makes something that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .inputs import Inputs

__all__ = ["Case", "Options", "Runnable", "Suite", "Timer", "Value", "rotating"]

Value = str | int | float | bool
"""What a column of a row holds."""

Timer = Literal["device", "wall", "host", "wait", "queued"]
"""What a sample covers.

``device``: the device's time only.  ``wall``: from the call until the device is done, for code
that waits for the device.  ``host``: what the host takes to hand the work over.  ``wait``:
from then until the device is done and the host goes on.  ``queued``: the device's time of calls
that were all in the queue when it began.  On a CPU all are the time of the call.
"""


@dataclass(frozen=True)
class Runnable:
    """Something that can be called again and again on inputs of its own.

    Attributes
    ----------
    run : callable
        ``run(i)`` works on input set ``i % sets``.
    sets : int
        Input sets.
    set_bytes : int
        What one of them occupies, outputs that are reused included [B].
    timer : Timer
        What to time.
    graph : bool
        Whether a CUDA graph can capture it: it never waits for the device.
    per_call : int
        Executions in one call, by which times are divided.
    queue : int
        Calls that a GPU's queue takes before the host has to wait; about 1000 kernels.
    context : callable
        Makes a context that is entered around warm-up and samples, not around each call.
    columns : mapping of str to Value
        Columns of the row that only preparing could find out, such as peak memory.
    """

    run: Callable[[int], object]
    sets: int
    set_bytes: int
    timer: Timer = "device"
    graph: bool = True
    per_call: int = 1
    queue: int = 500
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    columns: Mapping[str, Value] = field(default_factory=dict)

    @property
    def rotation_bytes(self) -> int:
        """Memory of all input sets [B]."""
        return self.sets * self.set_bytes


@dataclass(frozen=True, eq=False)
class Case:
    """One shape to be timed.

    Attributes
    ----------
    suite : str
        The suite it belongs to.
    kind : str
        Kind of measurement, which is also the name of its file.
    key : mapping of str to Value
        Columns that tell it from other cases of its kind, ``dtype`` among them.
    prepare : callable
        Makes inputs and returns what runs; nothing in it is timed.
    notes : mapping of str to Value
        Columns that say more and tell nothing apart.
    """

    suite: str
    kind: str
    key: Mapping[str, Value]
    prepare: Callable[[Inputs], Runnable]
    notes: Mapping[str, Value] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """Number format of its inputs."""
        return str(self.key["dtype"])

    @property
    def label(self) -> str:
        """The case in words, for progress and failures; a whole configuration is none."""
        words = {name: str(value) for name, value in self.key.items()}
        told = (f"{name}={word}" for name, word in words.items() if not word.startswith("{"))
        return " ".join([self.kind, *told])


@dataclass(frozen=True)
class Options:
    """What a suite makes its cases from.

    Attributes
    ----------
    device : {"cpu", "cuda"}
        Where they will run.
    dtypes : tuple of str
        Number formats by tidy name: fp32, fp16, bf16.
    models : tuple of str
        Names of `..models.shapes`; empty for the suite's own choice.
    tokens : tuple of int
        Token counts; empty for the suite's own.
    quick : bool
        Small sizes, which take seconds on a CPU.
    """

    device: str = "cpu"
    dtypes: tuple[str, ...] = ("fp32",)
    models: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    quick: bool = False


@dataclass(frozen=True)
class Suite:
    """A family of cases: the ``SUITE`` of a module of `..suites`.

    Attributes
    ----------
    name : str
        The module's name.
    summary : str
        What it times, in one line.
    cases : callable
        Makes the cases, from small to large.
    ordered : bool
        Whether cases run in the order given, because neighbours share something dear;
        otherwise any beginning of a run covers the whole range.
    """

    name: str
    summary: str
    cases: Callable[[Options], Sequence[Case]]
    ordered: bool = False


def rotating(
    inputs: Inputs,
    make: Callable[[Inputs], tuple[Any, ...]],
    call: Callable[..., object],
    **rest: Any,
) -> Runnable:
    """Return a call on so many sets of inputs that they do not fit into the cache.

    Parameters
    ----------
    inputs : Inputs
        Where tensors come from.
    make : callable
        Makes one set.
    call : callable
        Takes one set.
    **rest
        Other attributes of the `Runnable`.

    Returns
    -------
    Runnable
    """
    before = inputs.taken_bytes
    first = make(inputs)
    size = inputs.taken_bytes - before
    sets = [first, *(make(inputs) for _ in range(inputs.sets_for(size) - 1))]
    count = len(sets)
    return Runnable(lambda i: call(*sets[i % count]), count, size, **rest)
