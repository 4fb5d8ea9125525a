"""An estimate under a counting convention, as facts for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from costmodel.report.text import facts, quantity

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["convention_tables"]


def convention_tables(section: Mapping[str, Any] | None) -> list[RenderableType]:
    """Return the section of a convention; nothing if there is none.

    Parameters
    ----------
    section : mapping, optional
        `Estimate.convention`.

    Returns
    -------
    list of rich renderables
    """
    from rich.text import Text

    if section is None:
        return []
    heading = f"Convention {section['name']} ({section['title']})"
    return ["", Text(heading, style="bold"), facts(_rows(section))]


def _rows(section: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    unit = section["counts"]
    yield "Counts", f"{unit}: {section['equation']}"
    compressed = section["baseline_flops"] != section["flops"]
    before = f" (before: {quantity(section['baseline_flops'], unit)})" if compressed else ""
    yield "Whole prompt", quantity(section["flops"], unit) + before
    if section["flops_visual"] is not None:
        yield "Visual tokens alone", quantity(section["flops_visual"], unit)
    yield "Mean per layer", quantity(section["flops_per_layer"], unit)
    yield (
        "True",
        f"{quantity(section['true_flops'], 'FLOP')} of language model and head, "
        f"{section['true_ratio']:.4g} times the whole prompt's",
    )
    yield "Equivalent tokens", f"{section['equivalent_tokens']:,.4g} visual, the layers' mean"
    yield "KV cache by rule", quantity(section["kv_cache_bytes"], "B")
    viewer = section["llm_viewer"]
    if viewer is not None:
        yield "Total memory", f"{quantity(viewer['bytes_moved'], 'B')} of traffic"
        stored = quantity(viewer["activations_stored_bytes"], "B")
        yield "Storing activation", f"{stored} of traffic"
        yield "Footprint", quantity(viewer["footprint_bytes"], "B")
        time_s = viewer["time_s"]
        yield (
            "Prefill time",
            f"{quantity(time_s, 's')} on {viewer['device']}"
            if time_s is not None
            else "none: LLM-Viewer does not know this GPU",
        )
