"""HiRED (AAAI 2025): measured figures only."""

from __future__ import annotations

from costmodel.reproduction.paper import Paper

__all__ = ["PAPER"]

PAPER = Paper(name="hired", title="HiRED (AAAI 2025)", url="https://github.com/hasanar1f/HiRED")
