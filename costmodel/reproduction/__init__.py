"""Every published cost figure computed again, or why it cannot be.

>>> from costmodel.reproduction import reproduce, summary
>>> rows = reproduce("m3")
>>> sum(row.rounds for row in rows), len(rows)
(17, 20)
"""

from __future__ import annotations

from costmodel.reproduction.judging import Reproduction, Summary, reproduce, summary
from costmodel.reproduction.paper import Formula, Paper, list_papers, load_paper
from costmodel.reproduction.published import Published, published_costs

__all__ = [
    "Formula",
    "Paper",
    "Published",
    "Reproduction",
    "Summary",
    "list_papers",
    "load_paper",
    "published_costs",
    "reproduce",
    "summary",
]
