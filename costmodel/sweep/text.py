"""Parts as lines of CSV."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.sweep.encoding import Encoded, Texts

__all__ = ["CsvFormat"]


class CsvFormat:
    """Encodes parts as CSV; numbers in full, so that reading them gives the same again.

    Parameters
    ----------
    numbers : mapping of str to dtype
        Columns of numbers, in order.
    texts : mapping of str to tuple
        All values of every other column.
    """

    def __init__(self, numbers: Mapping[str, Any], texts: Texts) -> None:
        self._numbers, self._texts = numbers, texts

    def encode(self, columns: Mapping[str, Any], labels: Sequence[tuple[int, ...]]) -> Encoded:
        """Encode a part; see `costmodel.sweep.encoding.Format`."""
        import pandas as pd

        sizes = [label[0] for label in labels]
        frame: dict[str, Any] = {}
        for place, (name, values) in enumerate(self._texts.items(), start=1):
            where = np.repeat(np.array([label[place] for label in labels]), sizes)
            frame[name] = np.array(values, dtype=object)[where]
        for name in self._numbers:
            frame[name] = columns[name]
        text = io.StringIO()
        pd.DataFrame(frame).to_csv(text, index=False, header=False, lineterminator="\n")
        return Encoded(text.getvalue().encode(), b"", sum(sizes))

    def start(self) -> bytes:
        """Return the line of names."""
        return (",".join([*self._texts, *self._numbers]) + "\n").encode()

    def finish(
        self, footers: Sequence[bytes], positions: Sequence[int], metadata: Mapping[str, str]
    ) -> bytes:
        """Return nothing: the metadata of a CSV file lie beside it."""
        return b""
