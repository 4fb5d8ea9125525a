"""What is measured in which order, and how the minutes are shared out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["GPU_STEPS", "SMOKE_SHARE", "Step", "steps_for"]

SMOKE_SHARE = 0.06
"""Of the minutes, at most, for trying every suite first."""


@dataclass(frozen=True)
class Step:
    """One run of a suite.

    Attributes
    ----------
    name : str
        Of its log.
    suite : str
        Of the harness.
    weight : float
        Its share of the time, beside the weights of the steps after it.
    model : str
        Model, empty for the one asked for.
    tokens : tuple of int
        Token counts, empty for the suite's own.
    """

    name: str
    suite: str
    weight: float
    model: str = ""
    tokens: tuple[int, ...] = ()


GPU_STEPS: tuple[Step, ...] = (
    # Compiling takes up to a minute for each pass and prompt, so that four prompts in all
    # runtimes come first and the others when everything else is measured.
    Step("prefill-first", "prefill", 40, tokens=(40, 128, 640, 4096)),
    Step("gemm", "gemm", 12),
    Step("attention", "attention", 12),
    Step("memory_bound", "memory_bound", 8),
    Step("launch", "launch", 2),
    Step("compression", "compression", 10),
    Step("blocks", "blocks", 5),
    Step("prefill", "prefill", 7),
    Step("prefill-13b", "prefill", 4, model="llava-1.5-13b"),
)
"""By worth: whatever is cut off at the end matters least."""

_SMALL_PROMPTS = {"llava-small": (40, 128, 640), "llava-tiny": (40, 128)}


def steps_for(model: str, only: Sequence[str] = ()) -> list[Step]:
    """Return the steps for a model.

    Parameters
    ----------
    model : str
        A model that is no LLaVA-1.5-7B has no larger sister, and a small one fewer prompts.
    only : sequence of str
        Names of steps or suites; empty for all.

    Raises
    ------
    ValueError
        If there is no such step.

    Examples
    --------
    >>> [step.name for step in steps_for("llava-1.5-7b", ["prefill", "launch"])]
    ['prefill-first', 'launch', 'prefill', 'prefill-13b']
    >>> [step.name for step in steps_for("llava-1.5-7b", ["prefill-first"])]
    ['prefill-first']
    """
    known = {name for step in GPU_STEPS for name in (step.name, step.suite)}
    for name in only:
        if name not in known:
            raise ValueError(f"only: {name!r} is none of {', '.join(sorted(known))}")
    chosen = [
        step for step in GPU_STEPS if not only or step.name in only or step.suite in only
    ]  # fmt: skip
    if model != "llava-1.5-7b":
        chosen = [step for step in chosen if not step.model]
    prompts = _SMALL_PROMPTS.get(model)
    return [
        replace(step, tokens=prompts) if step.tokens and prompts else step for step in chosen
    ]  # fmt: skip


def budget_s(steps: Sequence[Step], left_s: float) -> float:
    """Return the seconds of the first of the steps that are still to come.

    Examples
    --------
    >>> budget_s([Step("a", "gemm", 3), Step("b", "launch", 1)], 100.0)
    75.0
    """
    return left_s * steps[0].weight / sum(step.weight for step in steps)
