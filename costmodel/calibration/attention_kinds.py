"""Which of the three attention kinds a row is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.reading import Part

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attention_parts"]

_FALSE = ("false", "0", "0.0")


def attention_parts(frame: pd.DataFrame, published: tuple[str, ...] = ()) -> list[Part]:
    """Split attention rows by kind; empty parts are left out.

    One new token with older ones is decode, whatever the file calls it; of the others, those
    without a causal mask are encoder attention.

    Parameters
    ----------
    frame : DataFrame
        Tidy columns, values not yet checked.
    published : tuple of str
        As in `Part`.

    Returns
    -------
    list of Part
    """
    import pandas as pd

    queries = pd.to_numeric(frame["q_len"], errors="coerce").to_numpy(dtype=np.float64)
    keys = pd.to_numeric(frame["kv_len"], errors="coerce").to_numpy(dtype=np.float64)
    causal = frame["causal"].astype(str).str.strip().str.lower()
    decode = (queries == 1) & (keys > 1)
    encoder = ~decode & causal.isin(_FALSE).to_numpy(dtype=bool)
    kinds = {
        "attention_prefill": ~decode & ~encoder,
        "attention_encoder": encoder,
        "attention_decode": decode,
    }
    return [Part(kind, frame[mask], published) for kind, mask in kinds.items() if mask.any()]
