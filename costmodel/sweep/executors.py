"""Who computes the parts: this process, processes of this machine, or a cluster.

Parts come back in their order whoever computes them, and few are under way at once, so that
memory is bounded and what is written does not depend on who is faster.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from costmodel.errors import CostModelError, InputError, SpecError
from costmodel.sweep.blocks import Block
from costmodel.sweep.computing import Computer
from costmodel.sweep.encoding import Encoded, Format
from costmodel.sweep.parts import Part

__all__ = ["Job", "on_cluster", "on_processes", "one_by_one"]


@dataclass(frozen=True, eq=False)
class Job:
    """What every worker needs to know beside its part.

    Attributes
    ----------
    digest : str
        Of the sweep.
    columns : dict of str to dtype
        Columns of numbers.
    outputs : tuple of str
    form : Format
    texts : dict of str to tuple
        All values of the columns of text.
    """

    digest: str
    columns: dict[str, Any]
    outputs: tuple[str, ...]
    form: Format
    texts: dict[str, tuple[Any, ...]]

    def labels(self, part: Part, blocks: dict[int, Block]) -> list[tuple[int, ...]]:
        """Return the points of each piece and the places of its texts."""
        return [
            (
                piece.stop - piece.start,
                *(
                    values.index(blocks[piece.block].labels[name])
                    for name, values in self.texts.items()
                ),
            )
            for piece in part.pieces
        ]


Task = tuple[Part, dict[int, Block]]

# The tables of the block that a thread worked on last; a cluster's worker may have several.
_HELD = threading.local()


def compute(job: Job, part: Part, blocks: dict[int, Block]) -> Encoded:
    """Compute and encode one part; where the work is done."""
    columns = computer_of(job).part(part, blocks, fresh=False)
    return job.form.encode(columns, job.labels(part, blocks))


def computer_of(job: Job) -> Computer:
    """Return this thread's computer, with the tables it made last."""
    held: tuple[str, Computer] | None = getattr(_HELD, "computer", None)
    if held is None or held[0] != job.digest:
        held = (job.digest, Computer(job.columns, job.outputs))
        _HELD.computer = held
    return held[1]


def one_by_one(job: Job, tasks: Iterable[Task]) -> Iterator[Encoded]:
    """Compute all parts in this process."""
    for part, blocks in tasks:
        yield compute(job, part, blocks)


def on_processes(job: Job, tasks: Iterable[Task], workers: int) -> Iterator[Encoded]:
    """Compute parts in processes of this machine.

    Raises
    ------
    SpecError
        If one of them was killed.
    """
    # A copy of a process with threads may hang: start them anew.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from _in_order(
                lambda part, blocks: pool.submit(compute, job, part, blocks), tasks, 2 * workers
            )
        except BrokenProcessPool:
            raise SpecError(
                "workers: a process was killed, maybe for want of memory; "
                "go on with --resume and fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def on_cluster(job: Job, tasks: Iterable[Task], address: str) -> Iterator[Encoded]:
    """Compute parts on the workers of a dask.distributed scheduler.

    The parts of a worker that dies are computed again by others.

    Raises
    ------
    SpecError
        If dask.distributed is not installed, or other versions of costmodel are.
    InputError
        If there is no scheduler at the address, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise SpecError(
            "scheduler: needs dask.distributed; install the extra: "
            "pip install 'costmodel[distributed]'"
        ) from None
    try:
        client = Client(address, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            "scheduler", address, f"the address of a dask scheduler that answers ({error})"
        ) from None
    with client:
        workers = _checked_workers(client, address)
        yield from _in_order(
            lambda part, blocks: client.submit(
                compute, job, part, blocks, pure=False, retries=3,
                key=f"costmodel-{job.digest[:16]}-{part.index}",
            ),
            tasks, 2 * workers + 2,
        )  # fmt: skip


def _checked_workers(client: Any, address: str) -> int:
    workers = client.nthreads()
    if not workers:
        raise InputError("scheduler", address, "a scheduler with at least one worker")
    own = _version()
    for where, theirs in client.run(_version).items():
        if theirs != own:
            raise SpecError(f"scheduler: {where} has costmodel {theirs}, not {own}")
    return sum(workers.values())


def _version() -> str:
    from importlib.metadata import version

    return version("costmodel")


def _in_order(
    submit: Callable[[Part, dict[int, Block]], Any], tasks: Iterable[Task], most: int
) -> Iterator[Encoded]:
    """Keep some parts under way; yield results in their order."""
    waiting: deque[Any] = deque()
    try:
        for part, blocks in tasks:
            waiting.append(submit(part, blocks))
            if len(waiting) >= most:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Any) -> Encoded:
    try:
        found: Encoded = future.result()
    except (CostModelError, BrokenProcessPool):
        raise
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            raise SpecError(f"scheduler: {error}") from None
        raise
    return found
