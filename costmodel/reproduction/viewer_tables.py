"""Tables that were made with LLM-Viewer: its four quantities in the units that papers print."""

from __future__ import annotations

from costmodel.conventions import load_convention, uniform
from costmodel.conventions.viewer import ViewerConvention, ViewerReport
from costmodel.conventions.viewer_hardware import load_viewer_device
from costmodel.conventions.viewer_ops import Formats
from costmodel.reproduction.shapes import llm_of

__all__ = ["printed_value", "viewer_report"]


def viewer_report(
    convention: str, model: str, device: str, tokens: int, bytes_per_element: float = 2.0
) -> ViewerReport:
    """Return what LLM-Viewer says of a prompt.

    Parameters
    ----------
    convention : str
        ``llm-viewer`` or ``llm-viewer-legacy``.
    model, device : str
        Published name of the model, and LLM-Viewer's name of the device.
    tokens : int
        Tokens of the prompt.
    bytes_per_element : float
        Of weights, activations and KV cache alike.

    Returns
    -------
    ViewerReport

    Raises
    ------
    TypeError
        If the convention is not one of LLM-Viewer's.
    """
    count = load_convention(convention)
    if not isinstance(count, ViewerConvention):
        raise TypeError(f"{convention} is not a convention of LLM-Viewer")
    text = llm_of(model)
    each = Formats(bytes_per_element, bytes_per_element, bytes_per_element)
    return count.report(
        text, uniform(text, tokens), formats=each, device=load_viewer_device(device)
    )


def printed_value(report: ViewerReport, metric: str) -> float:
    """Return one quantity of a report in the unit papers print.

    "Total memory" and "storing activation" are traffic.

    Examples
    --------
    >>> report = viewer_report("llm-viewer", "7B", "nvidia_A6000", 606)
    >>> f"{printed_value(report, 'total memory'):.1f} GB"
    '21.6 GB'
    """
    return {
        "FLOPs": report.flops / 1e12,
        "prefill time": 1e3 * (report.time_s or 0.0),
        "total memory": report.bytes_moved / 1e9,
        "storing activation": report.activations_stored_bytes / 1e9,
    }[metric]
