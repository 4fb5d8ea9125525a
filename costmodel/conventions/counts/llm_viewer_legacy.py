"""First versions of LLM-Viewer: the head reads one byte per weight, attention all heads' keys."""

from __future__ import annotations

from costmodel.conventions.viewer import ViewerConvention

__all__ = ["CONVENTION"]


class LlmViewerLegacy(ViewerConvention):
    """First versions of LLM-Viewer: the head reads one byte per weight, attention all heads' keys.

    The equations are those of `costmodel.conventions.viewer_ops`.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> from costmodel.conventions import uniform
    >>> text = load_model("llama-2-7b").text
    >>> report = CONVENTION.report(text, uniform(text, 70))
    >>> f"{report.flops / 1e12:.2f} T, {report.bytes_moved / 1e9:.1f} GB"
    '0.91 T, 13.7 GB'
    """

    name = "llm-viewer-legacy"
    title = "D: LLM-Viewer, first versions"
    used_by = "LLaVA-PruMerge"
    legacy = True


CONVENTION = LlmViewerLegacy()
