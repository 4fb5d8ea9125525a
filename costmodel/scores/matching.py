"""Scores of a method on a model at a number of tokens."""

from __future__ import annotations

from costmodel.compression.method import load_method
from costmodel.scores.published import Score, published_scores

__all__ = ["scores_for"]


def scores_for(method: str, model: str, tokens: int | None = None) -> list[Score]:
    """Return every published score of a method on a model.

    Parameters
    ----------
    method : str
        Name of a method, without parameters.
    model : str
        Name of a model in the catalogue; a model nobody published scores of has none.
    tokens : int, optional
        Visual tokens as the sources count them: those that enter the language model, or the
        mean over its layers where a method drops tokens on the way.  Scores at exactly this
        number; without it, all, also those whose source states no number.

    Returns
    -------
    list of Score
        In the order of the sources, which may contradict one another.

    Raises
    ------
    UnknownNameError
        If there is no such method.

    Examples
    --------
    >>> found = scores_for("fastv", "llava-1.5-7b", 192)
    >>> [(row.source.partition(" ")[0], row.printed) for row in found if row.benchmark == "GQA"]
    [('SparseVLM', '52.6'), ('VScan', '52.7'), ('MMTok', '52.7')]
    """
    load_method(method)
    return [
        row
        for row in published_scores()
        if row.method == method and row.model == model and tokens in (None, row.tokens)
    ]
