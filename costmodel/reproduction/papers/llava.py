"""LLaVA-1.5: measured figures only."""

from __future__ import annotations

from costmodel.reproduction.paper import Paper

__all__ = ["PAPER"]

PAPER = Paper(name="llava", title="LLaVA-1.5", url="https://github.com/haotian-liu/LLaVA")
