"""Numbers and lists as the text of answers has them, and what the times of a GPU rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from costmodel.case import Case
from costmodel.catalog.calibrations import default_calibration, load_calibration

__all__ = ["evidence", "listing", "milliseconds", "number", "percent", "setting", "span", "times"]


def number(value: float) -> str:
    """Return a number with three digits, or all before the point.

    Examples
    --------
    >>> number(0.01234), number(1234.5), number(2.0)
    ('0.0123', '1234', '2')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def milliseconds(seconds: float) -> str:
    """Return a time with its unit.

    Examples
    --------
    >>> milliseconds(0.0313)
    '31.3 ms'
    """
    return f"{1e3 * seconds:.1f} ms"


def percent(share: float) -> str:
    """Return a share in percent.

    Examples
    --------
    >>> percent(0.4549), percent(0.012)
    ('45 %', '1.2 %')
    """
    value = 100 * share
    return f"{value:.1f} %" if 0 < abs(value) < 10 else f"{value:.0f} %"


def times(ratio: float) -> str:
    """Return how many times, two digits behind the point.

    Examples
    --------
    >>> times(2.5)
    '2.50 times'
    """
    return f"{ratio:.2f} times"


def span(values: Iterable[float], unit: str = "") -> str:
    """Return the least and the most of values, or the one they are.

    Examples
    --------
    >>> span([3.0, 1.234], "ms"), span([2.0])
    ('1.23 to 3 ms', '2')
    """
    found = sorted(values)
    low, high = number(found[0]), number(found[-1])
    text = low if low == high else f"{low} to {high}"
    return f"{text} {unit}" if unit else text


def listing(items: Iterable[str], last: str = "and") -> str:
    """Return items as a sentence has them.

    Examples
    --------
    >>> listing(["a", "b", "c"]), listing(["a"]), listing([])
    ('a, b and c', 'a', 'none')
    """
    found = list(items)
    if len(found) < 2:
        return found[0] if found else "none"
    return f"{', '.join(found[:-1])} {last} {found[-1]}"


def setting(model: str, gpus: Sequence[str], runtime: str, **more: object) -> dict[str, str]:
    """Return the settings of a study as texts.

    Examples
    --------
    >>> setting("llava-1.5-7b", ["a40"], "eager", text_tokens=64)["text tokens"]
    '64'
    """
    return {
        "model": model,
        "GPUs": ", ".join(gpus),
        "runtime": runtime,
        **{name.replace("_", " "): str(value) for name, value in more.items()},
    }


def evidence(cases: Iterable[Case]) -> str:
    """Return sentences on what the times of each GPU rest on.

    They name the calibration, what it was fitted on if that is not the GPU itself, and kernels
    that were transferred from other devices or measured nowhere.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> text = evidence([prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64)])
    >>> "rtx-a6000" in text and "A40" in text
    True
    """
    seen = {case.gpu.name: case for case in cases}
    told = [_told(case) for case in seen.values()]
    return " ".join([*told, "This project measured none of these GPUs."])


def _told(case: Case) -> str:
    name = case.gpu.name
    if case.time_model != "calibrated":
        return f"{name} has no calibration: its times are the datasheet roofline, a lower bound."
    asked = case.deployment.calibration
    found = load_calibration(asked, case.gpu) if asked else default_calibration(case.gpu)
    if found is None:
        return f"{name} has no calibration."
    text = f"{name}: {found.title}"
    if found.device != name:
        return f"{text}, all kernels scaled from {found.device} by datasheets."
    moved = [fit for fit in found.kinds if fit.origin == "transferred"]
    if not moved:
        return f"{text}."
    own = [fit for fit in found.kinds if fit.origin != "transferred"]
    guessed = [fit.kind for fit in moved if "measured nowhere" in fit.rule]
    borrowed = [fit for fit in moved if fit.kind not in guessed]
    by_device: dict[str, list[str]] = {}
    for fit in borrowed:
        by_device.setdefault(fit.device, []).append(fit.kind.replace("_", " "))
    parts = [
        f"{'all kernels' if not own and len(by_device) == 1 else listing(kinds)} from {device}"
        for device, kinds in by_device.items()
    ]
    if parts:
        text += f"; transferred: {', '.join(parts)}"
    if guessed:
        text += f"; measured nowhere, after others like them: {listing(guessed)}"
    return f"{text}."
