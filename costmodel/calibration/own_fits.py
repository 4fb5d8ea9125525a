"""Fits of one's own rows: which can be made, and which parameters they identify."""

from __future__ import annotations

import datetime
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from costmodel.calibration.attention_stacks import SETTINGS, settings_of
from costmodel.calibration.building import Stack, build_kind, rows_of
from costmodel.calibration.processor_setups import setup_of
from costmodel.calibration.stacks import StackRows
from costmodel.errors import CostModelError
from costmodel.specs.calibration import KindFit
from costmodel.specs.hardware import HardwareProfile
from costmodel.timing.kernels.base import Parameter
from costmodel.timing.kernels.registry import kernel_model

__all__ = ["LeftOut", "OwnFit", "Progress", "fit_all"]

Progress = Callable[[str, int, int], None]
"""Called with the kind that is being fitted, its number from 0, and how many there are."""


@dataclass(frozen=True)
class OwnFit:
    """One kind that was fitted.

    Attributes
    ----------
    stack : StackRows
        The rows.
    fit : KindFit
        What they gave.
    like : str
        Known attention kernel whose tiles it has; empty for other kinds.
    at_bound : tuple of str
        Parameters that ended at the edge of their range: the rows do not identify them.
    too_short : int
        Rows left out because clocks of some sources do not resolve them.
    least_fitted_s : float
        They took less than this [s].
    """

    stack: StackRows
    fit: KindFit
    like: str
    at_bound: tuple[str, ...]
    too_short: int = 0
    least_fitted_s: float = 0.0

    @property
    def note(self) -> str:
        """What the calibration should say about the implementation; empty if nothing."""
        if not self.stack.kernel:
            return ""
        tiles = f", with the tiles of {self.like}" if self.like != self.stack.kernel else ""
        return f"{self.fit.kind}: {self.stack.kernel}{tiles if self.like else ''}"

    @property
    def short_note(self) -> str:
        """What the calibration should say about rows that were not used; empty if none."""
        if not self.too_short:
            return ""
        return f"{self.fit.kind}: {_short_rows(self.too_short, self.least_fitted_s)}"


@dataclass(frozen=True)
class LeftOut:
    """Rows that were not fitted, and why."""

    stack: StackRows
    reason: str


def fit_all(
    stacks: Sequence[StackRows],
    profile: HardwareProfile,
    date: datetime.date,
    progress: Progress | None,
) -> tuple[list[OwnFit], list[LeftOut]]:
    """Fit stacks of different kinds.

    Parameters
    ----------
    stacks : sequence of StackRows
        One for each kind.
    profile : HardwareProfile
        Their device.
    date : date
        Recorded with the fits.
    progress : callable, optional
        Told what is being fitted.

    Returns
    -------
    tuple of list of OwnFit and list of LeftOut
        What was fitted, and what has too few rows.

    Raises
    ------
    CostModelError
        If SciPy is missing.
    """
    if importlib.util.find_spec("scipy") is None:
        raise CostModelError("fitting needs SciPy: pip install 'costmodel[fit]'")
    fitted: list[OwnFit] = []
    failed: list[LeftOut] = []
    for index, stack in enumerate(stacks):
        if progress is not None:
            progress(stack.kind, index, len(stacks))
        setup = setup_of(stack.kind, profile)
        frame = rows_of(stack.kind, stack.timings, Stack(stack.gpu), setup)
        too_short = frame.attrs.get("too_short", 0)
        like = "" if profile.is_processor else _like(stack)
        frame.attrs["kernel"] = like or frame.attrs["kernel"]
        free = _free_parameters(stack.kind, like, profile)
        # Cross-validation fits three quarters of the rows.
        least = -(-4 * (len(free) + 1) // 3)
        if len(frame) < least:
            reason = f"{len(frame)} usable shapes are too few, at least {least} are needed"
            if too_short:
                reason += f"; {_short_rows(too_short, setup.least_fitted_s)}"
            failed.append(LeftOut(stack, reason))
            continue
        try:
            fit = build_kind(
                stack.kind,
                frame,
                profile,
                source=stack.source,
                software=stack.software,
                dtype=stack.dtype,
                sha256=stack.timings[0].sha256,
                fitted=date,
            )
        except CostModelError as error:
            failed.append(LeftOut(stack, str(error)))
            continue
        stuck = tuple(p.name for p in free if _at_bound(p, fit))
        fitted.append(OwnFit(stack, fit, like, stuck, too_short, setup.least_fitted_s))
    return fitted, failed


def _short_rows(count: int, least_s: float) -> str:
    rows = "1 row takes" if count == 1 else f"{count:,} rows take"
    return f"{rows} less than {1e6 * least_s:g} us and {'is' if count == 1 else 'are'} not used"


def _like(stack: StackRows) -> str:
    """Return the known attention kernel that a stack's is, or is taken to be: FlashAttention-2."""
    known = SETTINGS.get(stack.kind)
    if known is None:
        return ""
    return stack.kernel if stack.kernel in known else next(n for n in known if n.endswith("fa2"))


def _free_parameters(kind: str, like: str, profile: HardwareProfile) -> list[Parameter]:
    setup = setup_of(kind, profile)
    fixed = {**setup.fixed, **(settings_of(kind, like) if like else {})}
    model = kernel_model(setup.model, benchmark=True)
    return [parameter for parameter in model.parameters if parameter.name not in fixed]


def _at_bound(parameter: Parameter, fit: KindFit) -> bool:
    """Whether a value is within a thousandth of its range of one end."""
    low, high, value = parameter.low, parameter.high, fit.values[parameter.name]
    if low > 0 and (value / low < (high / low) ** 1e-3 or high / value < (high / low) ** 1e-3):
        return True
    reach = 1e-3 * (high - low)
    return (low <= 0 and value < low + reach) or value > high - reach
