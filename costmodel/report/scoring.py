"""Published scores beside costs: columns, records and lines of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from costmodel.scores import Score, SourceScore, by_source, score_range, scores_for

__all__ = ["method_scores", "score_columns", "score_lines", "score_records"]


def method_scores(
    method: str, inputs: dict[str, Any], visual_tokens_kept: int | None
) -> list[Score]:
    """Return the published scores that belong to a row of a comparison.

    Parameters
    ----------
    method : str
        Name of the method.
    inputs : dict
        The resolved question, as in `Estimate.inputs`.
    visual_tokens_kept : int or None
        Visual tokens that each image keeps; None for a comparison without that number.

    Returns
    -------
    list of Score
        Empty for videos and for a number of visual tokens that the question sets, which
        no image gives.
    """
    other = inputs["videos"] or inputs["visual_tokens"] is not None
    if other or visual_tokens_kept is None:
        return []
    return scores_for(method, inputs["model"], visual_tokens_kept)


def score_columns(scores: Sequence[Score]) -> dict[str, Any]:
    """Return the range over sources of the plain method, without its variants."""
    found = score_range(by_source(row for row in scores if not row.variant))
    return {
        "score_low_pct": found.low_pct if found else None,
        "score_high_pct": found.high_pct if found else None,
        "score_sources": found.sources if found else 0,
    }


def score_records(scores: Sequence[Score]) -> dict[str, Any]:
    """Return every score with its source, and one figure per source."""
    return {
        "scores_by_source": [asdict(one) for one in by_source(scores)],
        "scores": [
            asdict(row) | {"value": row.value, "relative_pct": row.relative_pct} for row in scores
        ],
    }


def score_lines(method: str, scores: Sequence[Score]) -> list[str]:
    """Return a line for the plain method and one for each variant, all sources side by side.

    Examples
    --------
    >>> from costmodel.scores import scores_for
    >>> print(*score_lines("v2drop", scores_for("v2drop", "llava-1.5-7b", 128)))
    v2drop: 94.0 % (1 source): V2Drop table 1 94.0 (printed average)
    """
    lines = []
    found = sorted(by_source(scores), key=lambda one: one.variant)
    for variant, group in groupby(found, key=lambda one: one.variant):
        sources = list(group)
        name = f"{method}, {variant}" if variant else method
        span = score_range(sources) or "no score relative to vanilla"
        lines.append(f"{name}: {span}: {'; '.join(map(_source, sources))}")
    return lines


def _source(one: SourceScore) -> str:
    if one.relative_pct is None:
        return f"{one.label} (no vanilla score)"
    count = len(one.benchmarks)
    basis = "printed average" if one.basis == "printed" else f"{count} benchmarks"
    return f"{one.label} {one.relative_pct:.1f} ({basis})"
