"""Which implementation of attention is fitted, where files hold several."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.calibration.own_fits import LeftOut, OwnFit
from costmodel.calibration.stacks import StackRows
from costmodel.errors import InputError

__all__ = ["by_kernel", "kernel_notes"]


def by_kernel(stacks: Sequence[StackRows], kernel: str) -> tuple[list[StackRows], list[LeftOut]]:
    """Return the stacks of one implementation, those that have none, and the others.

    Parameters
    ----------
    stacks : sequence of StackRows
        All kinds.
    kernel : str
        Beginning of the name of an implementation of attention.

    Returns
    -------
    tuple of list of StackRows and list of LeftOut
        What is to be fitted and what is not.

    Raises
    ------
    InputError
        If no stack has it.
    """
    chosen = [one for one in stacks if not _has_kernel(one) or one.kernel.startswith(kernel)]
    if not any(map(_has_kernel, chosen)):
        names = sorted({one.kernel for one in stacks if _has_kernel(one)})
        known = ", ".join(names) or "nothing: no row names an implementation of attention"
        raise InputError("kernel", kernel, f"the beginning of one of: {known}")
    reason = f"not the kernel that was chosen, {kernel}"
    return chosen, [LeftOut(one, reason) for one in stacks if one not in chosen]


def kernel_notes(fitted: Sequence[OwnFit], left_out: Sequence[LeftOut]) -> list[str]:
    """Return, for each kind with several implementations, which was taken and which were not.

    Parameters
    ----------
    fitted : sequence of OwnFit
        What was fitted.
    left_out : sequence of LeftOut
        What was not.

    Returns
    -------
    list of str
        Empty where there was nothing to choose from.
    """
    notes = []
    for one in fitted:
        rows: dict[str, int] = {}
        for other in left_out:
            stack = other.stack
            if stack.kind == one.fit.kind and _has_kernel(stack):
                rows[stack.kernel] = rows.get(stack.kernel, 0) + len(stack)
        rows.pop(one.stack.kernel, None)
        if rows:
            others = ", ".join(f"{name} ({count:,} rows)" for name, count in sorted(rows.items()))
            notes.append(
                f"{one.fit.kind}: fitted to {one.stack.kernel} ({len(one.stack):,} rows), not to "
                f"{others}; --kernel chooses"
            )
    return notes


def _has_kernel(stack: StackRows) -> bool:
    """Whether a stack is told apart by its implementation; collectives are by their topology."""
    return stack.kind.startswith("attention") and bool(stack.kernel)
