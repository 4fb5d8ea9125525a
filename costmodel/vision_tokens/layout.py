"""What images become: sequences for the vision tower, then rows and tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from costmodel.errors import InputError

__all__ = ["MAX_FRAMES", "MAX_SIDE", "ImageSize", "Segment", "VideoSize", "VisualLayout", "combine"]

MAX_SIDE = 100_000
"""Longest side of an image or frame [pixels]; beyond it, a typing mistake."""

MAX_FRAMES = 1_000_000
"""Most frames of a video."""

IMAGE_SHAPE = f"WIDTHxHEIGHT in pixels, whole numbers from 1 to {MAX_SIDE:,}"
VIDEO_SHAPE = f"WIDTHxHEIGHTxFRAMES, whole numbers, sides in pixels from 1 to {MAX_SIDE:,}"


def _is_count(value: object, largest: int) -> bool:
    # The hints promise int, but callers without a type checker pass 640.0 or True.
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


@dataclass(frozen=True)
class ImageSize:
    """An image.

    Parameters
    ----------
    width, height : int
        Sides [pixels], at most `MAX_SIDE`.

    Raises
    ------
    InputError
        If a side is not a positive int in range.

    Examples
    --------
    >>> str(ImageSize(640, 480))
    '640x480'
    """

    width: int
    height: int

    def __post_init__(self) -> None:
        if not all(_is_count(side, MAX_SIDE) for side in (self.width, self.height)):
            raise InputError("image", str(self), IMAGE_SHAPE)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class VideoSize:
    """A video after sampling.

    Parameters
    ----------
    width, height : int
        Sides of a frame [pixels], at most `MAX_SIDE`.
    frames : int
        Frames that the model is given.

    Raises
    ------
    InputError
        If a number is not a positive int in range.

    Examples
    --------
    >>> str(VideoSize(640, 480, 16))
    '640x480x16'
    """

    width: int
    height: int
    frames: int

    def __post_init__(self) -> None:
        sides = all(_is_count(side, MAX_SIDE) for side in (self.width, self.height))
        if not sides or not _is_count(self.frames, MAX_FRAMES):
            raise InputError("video", str(self), VIDEO_SHAPE)

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
        (rows, columns) of the features of one segment, where every segment
        yields such a grid and no other feature is inserted, so that
        ``features == tower_sequences * rows * columns``; None otherwise.
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


def combine(layouts: Iterable[VisualLayout]) -> VisualLayout:
    """Join the layouts of one request's images and videos.

    Counts add up; segments of equal shape are merged in order of appearance; the
    grid stays only where all layouts have the same.

    Parameters
    ----------
    layouts : iterable of VisualLayout
        One per image or video, in prompt order; none gives an empty layout.

    Returns
    -------
    VisualLayout
        Their sum.

    Examples
    --------
    >>> one = VisualLayout((Segment(1, 24, 24),), projected=576, features=576, grid=(24, 24))
    >>> two = combine([one, one])
    >>> two.features, two.segments, two.grid, two.units
    (1152, (Segment(count=2, height_patches=24, width_patches=24),), (24, 24), 2)
    """
    parts = tuple(layouts)
    counts: dict[tuple[int, int], int] = {}
    for segment in (segment for part in parts for segment in part.segments):
        shape = (segment.height_patches, segment.width_patches)
        counts[shape] = counts.get(shape, 0) + segment.count
    grids = {part.grid for part in parts}
    return VisualLayout(
        segments=tuple(Segment(count, *shape) for shape, count in counts.items()),
        projected=sum(part.projected for part in parts),
        features=sum(part.features for part in parts),
        markers=sum(part.markers for part in parts),
        grid=grids.pop() if len(grids) == 1 else None,
        units=sum(part.units for part in parts),
        notes=tuple(note for part in parts for note in part.notes),
    )
