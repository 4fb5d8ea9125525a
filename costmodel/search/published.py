"""Published scores joined to rows of a table of results."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from costmodel.errors import SpecError
from costmodel.scores import by_source, published_scores, score_range

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "join_scores"]

COLUMNS = ("score_low_pct", "score_high_pct", "score_sources")
"""Lowest and highest source in percent of the vanilla score, and the sources."""

_NEEDED = ("model", "method")
_TOKENS = ("visual_tokens_asked", "visual_tokens_kept")
_KEYS = ["model", "_name", "_tokens"]


def join_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the columns `COLUMNS`.

    A row gets the scores that sources published of its method on its model at exactly its number
    of tokens, averaged over the benchmarks of each source; NaN where there are none.  Variants
    of a method are left out, and so are parameters of a method beside the number it keeps.  No
    compression is 100 % by definition.  Rows whose ``visual_tokens`` are set, instead of given by
    images, have no score.

    Parameters
    ----------
    frame : pandas.DataFrame
        With ``model``, ``method`` and ``visual_tokens_asked`` or ``visual_tokens_kept``.

    Raises
    ------
    SpecError
        If a column is missing.
    """
    import pandas as pd

    tokens = next((name for name in _TOKENS if name in frame), None)
    missing = [name for name in _NEEDED if name not in frame]
    if missing or tokens is None:
        lacking = ", ".join([*missing, *([] if tokens else [" or ".join(_TOKENS)])])
        raise SpecError(f"scores need the columns {lacking}, which the results lack")
    methods = frame["method"].astype(str)
    # A chain of methods is none of its parts.
    names = {text: "" if " then " in text else text.partition(":")[0] for text in methods.unique()}
    keyed = pd.DataFrame({
        "model": frame["model"].astype(str).to_numpy(),
        "_name": methods.map(names).to_numpy(),
        "_tokens": frame[tokens].to_numpy(dtype=np.float64),
    })  # fmt: skip
    table = pd.DataFrame(_published(), columns=[*_KEYS, *COLUMNS])
    found = keyed.merge(table, on=_KEYS, how="left")[list(COLUMNS)]
    vanilla = (keyed["_name"] == "none").to_numpy()
    found.loc[vanilla, list(COLUMNS[:2])] = 100.0
    found.loc[vanilla, COLUMNS[2]] = "by definition"
    if "visual_tokens" in frame:
        # A number of tokens that the question sets, and no image gives, was never scored.
        found.loc[frame["visual_tokens"].notna().to_numpy() & ~vanilla, list(COLUMNS)] = np.nan
    found.index = frame.index
    return frame.drop(columns=[name for name in COLUMNS if name in frame]).join(found)


@cache
def _published() -> tuple[tuple[str, str, float, float, float, str], ...]:
    """Return model, method, tokens, lowest and highest figure, and sources."""
    groups: dict[tuple[str, str, int], list[object]] = {}
    for row in published_scores():
        if row.model and row.method and row.tokens is not None and not row.variant:
            groups.setdefault((row.model, row.method, row.tokens), []).append(row)
    found = []
    for (model, method, tokens), rows in groups.items():
        sources = by_source(rows)  # type: ignore[arg-type]
        span = score_range(sources)
        if span is not None:
            labels = [one.label for one in sources if one.relative_pct is not None]
            text = "; ".join(dict.fromkeys(labels))
            found.append((model, method, float(tokens), span.low_pct, span.high_pct, text))
    return tuple(found)
