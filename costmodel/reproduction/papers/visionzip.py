"""VisionZip (CVPR 2025): measured figures only."""

from __future__ import annotations

from costmodel.reproduction.paper import Paper

__all__ = ["PAPER"]

PAPER = Paper(
    name="visionzip", title="VisionZip (CVPR 2025)", url="https://arxiv.org/abs/2412.04467"
)
