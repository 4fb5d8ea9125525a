"""What images become: sequences for the vision tower, then rows and tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ImageSize", "Segment", "VideoSize", "VisualLayout"]


@dataclass(frozen=True)
class ImageSize:
    """An image [pixels]."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class VideoSize:
    """A video: frame size [pixels] and the number of sampled frames."""

    width: int
    height: int
    frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"


@dataclass(frozen=True)
class Segment:
    """`count` equal sequences of patches that attend only to themselves in the tower.

    ``height_patches * width_patches`` patch tokens each, class token not counted.
    """

    count: int
    height_patches: int
    width_patches: int

    @property
    def patches(self) -> int:
        """Patch tokens of one sequence."""
        return self.height_patches * self.width_patches


@dataclass(frozen=True)
class VisualLayout:
    """What one image, video or request becomes.

    Attributes
    ----------
    segments : tuple of Segment
        Vision-tower sequences.
    projected : int
        Rows that leave the projector.
    features : int
        Visual embeddings in the prompt, newline tokens included: what a
        compression method can work on.
    markers : int
        Text-like tokens that the image brings along (start, end, row and column
        marks).  They are visual tokens but cannot be compressed.
    grid : tuple of int, optional
        (rows, columns) of the projected tokens of one segment, where every
        segment yields such a grid and nothing is inserted between; None otherwise.
    units : int
        Images (or videos) described.
    notes : tuple of str
        For people: canvas, tiles, resized size.
    """

    segments: tuple[Segment, ...]
    projected: int
    features: int
    markers: int = 0
    grid: tuple[int, int] | None = None
    units: int = 1
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def tokens(self) -> int:
        """All visual tokens of the prompt, markers included."""
        return self.features + self.markers

    @property
    def tower_sequences(self) -> int:
        """Number of sequences the vision tower encodes."""
        return sum(segment.count for segment in self.segments)
