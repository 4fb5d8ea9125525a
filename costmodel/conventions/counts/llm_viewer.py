"""LLM-Viewer as it is: a head of d V operations with weights in their own format."""

from __future__ import annotations

from costmodel.conventions.viewer import ViewerConvention

__all__ = ["CONVENTION"]


class LlmViewer(ViewerConvention):
    """LLM-Viewer as it is: a head of d V operations with weights in their own format.

    The equations are those of `costmodel.conventions.viewer_ops`.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> from costmodel.conventions import uniform
    >>> text = load_model("llama-2-7b").text
    >>> report = CONVENTION.report(text, uniform(text, 70))
    >>> f"{report.flops / 1e12:.2f} T, {report.bytes_moved / 1e9:.1f} GB"
    '0.91 T, 13.9 GB'
    """

    name = "llm-viewer"
    title = "D: LLM-Viewer"
    used_by = "Matryoshka Multimodal Models (M3)"


CONVENTION = LlmViewer()
