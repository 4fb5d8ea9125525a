"""One case over batch sizes: times, bands, memory, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.case import Case
from costmodel.description import tokens
from costmodel.evaluation import FloatArray
from costmodel.memory import Memory, largest_batch
from costmodel.points import evaluate_grid
from costmodel.studies.prefill import Prefill, prefill

__all__ = ["BatchRuns", "batch_runs"]


@dataclass(frozen=True)
class BatchRuns:
    """A case at several batch sizes, on one GPU (or one of those of a tensor-parallel group).

    Attributes
    ----------
    case : Case
    batches : ndarray
        Requests computed together.
    time_s : dict of str to ndarray
        By stage, ``host_overhead``, ``ttft`` and ``tpot`` [s].
    flops : dict of str to ndarray
        By stage and ``total`` [FLOP].
    memory : Memory
        Weights, KV cache and peak activations [B].
    """

    case: Case
    batches: FloatArray
    time_s: dict[str, FloatArray]
    flops: dict[str, FloatArray]
    memory: Memory

    @property
    def ttft_s(self) -> FloatArray:
        """Time to the first token [s]."""
        return self.time_s["ttft"]

    @cached_property
    def band_s(self) -> tuple[FloatArray, FloatArray]:
        """90 % band of the time to the first token, for any lab and software [s]."""
        return self._prefill.bands["any_stack"]

    @cached_property
    def same_stack_s(self) -> tuple[FloatArray, FloatArray]:
        """90 % band for the lab and the software of the calibration [s]."""
        return self._prefill.bands["same_stack"]

    @property
    def requests_per_s(self) -> FloatArray:
        """Requests whose first token comes out, per second and GPU."""
        return self.batches / self.ttft_s

    @cached_property
    def visual_tokens(self) -> float:
        """Visual tokens of a request as the mean over the layers of the language model."""
        program, plan = self.case.program()
        return float(tokens(self.case, plan, program)["visual_equivalent"])

    @cached_property
    def largest(self) -> int:
        """Largest batch that fits in the memory of the GPU."""
        program, _ = self.case.program()
        return largest_batch(program, self.case.gpu.capacity_bytes)

    @property
    def fits(self) -> list[bool]:
        """Whether each batch fits in the memory of the GPU."""
        return [bool(held <= self.case.gpu.capacity_bytes) for held in self.memory.total]

    @cached_property
    def _prefill(self) -> Prefill:
        return prefill(self.case, batch=self.batches)


def batch_runs(case: Case, batches: Sequence[int]) -> BatchRuns:
    """Evaluate a case at several batch sizes.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`; its own batch does not matter.
    batches : sequence of int
        Batch sizes.

    Returns
    -------
    BatchRuns

    Raises
    ------
    InputError
        If there is no batch, or one is negative.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> runs = batch_runs(prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64), [1, 8])
    >>> runs.fits, runs.largest
    ([True, True], 92)
    """
    numbers = np.asarray(batches, dtype=np.float64)
    grid = evaluate_grid(case, batch=numbers)
    return BatchRuns(case, numbers, grid.time_s, grid.flops, grid.memory)
