"""Both bands of a prediction in a sentence: any lab and software, and those of the calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from costmodel.case import Case
from costmodel.studies.prefill import prefill
from costmodel.studies.wording import listing

__all__ = ["stack_bands"]


def stack_bands(cases: Iterable[Case]) -> str:
    """Return how wide the bands of the time to the first token are without compression.

    Parameters
    ----------
    cases : iterable of Case
        The first of each GPU counts.

    Returns
    -------
    str
        A sentence; empty where no GPU has bands.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> text = stack_bands([prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64)])
    >>> text.startswith("Without compression the 90 % band is") and text.endswith(".")
    True
    """
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.gpu.name, case)
    told = []
    for gpu, case in first.items():
        run = prefill(replace(case, request=None))
        if run.bands:
            wide, near = (
                [100 * (float(np.max(side)) / float(run.ttft_s) - 1) for side in run.bands[kind]]
                for kind in ("any_stack", "same_stack")
            )
            told.append(
                f"{wide[0]:+.0f} to {wide[1]:+.0f} % on {gpu} ({near[0]:+.0f} to {near[1]:+.0f} %)"
            )
    if not told:
        return ""
    return (
        f"Without compression the 90 % band is {listing(told)} for any lab and software (in "
        "brackets: for those of the calibration)."
    )
