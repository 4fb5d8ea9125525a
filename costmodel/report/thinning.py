"""Fewer points where a page cannot show them all, by rules that the figure states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["evenly", "every_nth"]


def every_nth(frame: pd.DataFrame, most: int, note: str) -> tuple[pd.DataFrame, str]:
    """Return every n-th row, in their order, and the note with that rule added.

    Examples
    --------
    >>> import pandas as pd
    >>> rows, note = every_nth(pd.DataFrame({"x": range(10)}), 4, "fixed")
    >>> rows["x"].tolist(), note
    ([0, 3, 6, 9], 'fixed; every 3rd of 10 rows')
    """
    if len(frame) <= most:
        return frame, note
    step = -(-len(frame) // most)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(step % 10 if step % 100 not in (11, 12, 13) else 0)
    rule = f"every {step}{ending or 'th'} of {len(frame):,} rows"
    return frame.iloc[::step], f"{note}; {rule}" if note else rule


def evenly(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return rows evenly over their order, the first and the last among them.

    Examples
    --------
    >>> import pandas as pd
    >>> evenly(pd.DataFrame({"x": range(10)}), 4)["x"].tolist()
    [0, 3, 6, 9]
    """
    if len(frame) <= most:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, most).round().astype(int)]
