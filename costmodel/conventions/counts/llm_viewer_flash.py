"""LLM-Viewer's flash attention, which writes 2 n^2 elements per head instead of n a."""

from __future__ import annotations

from costmodel.conventions.viewer import ViewerConvention

__all__ = ["CONVENTION"]


class LlmViewerFlash(ViewerConvention):
    """LLM-Viewer's flash attention, which writes 2 n^2 elements per head instead of n a.

    The equations are those of `costmodel.conventions.viewer_ops`.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> from costmodel.conventions import uniform
    >>> text = load_model("llama-2-7b").text
    >>> report = CONVENTION.report(text, uniform(text, 70))
    >>> f"{report.flops / 1e12:.2f} T, {report.bytes_moved / 1e9:.1f} GB"
    '0.91 T, 13.8 GB'
    """

    name = "llm-viewer-flash"
    title = "D: LLM-Viewer with its flash attention"
    used_by = "papers that tick its box"

    flash = True


CONVENTION = LlmViewerFlash()
