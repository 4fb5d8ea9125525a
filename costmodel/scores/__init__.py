"""Published benchmark scores of compression methods, every figure with its source.

>>> from costmodel.scores import by_source, score_range, scores_for
>>> rows = [row for row in scores_for("visionzip", "llava-1.5-7b", 64) if not row.variant]
>>> print(score_range(by_source(rows)))
92.7-94.0 % (3 sources)
"""

from __future__ import annotations

from costmodel.scores.matching import scores_for
from costmodel.scores.published import AVERAGES, Score, published_scores
from costmodel.scores.relative import ScoreRange, SourceScore, by_source, score_range

__all__ = [
    "AVERAGES",
    "Score",
    "ScoreRange",
    "SourceScore",
    "by_source",
    "published_scores",
    "score_range",
    "scores_for",
]
