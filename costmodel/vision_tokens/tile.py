r"""InternVL: the tile grid closest in aspect ratio, plus a thumbnail.

.. math:: N = (ij + [ij > 1]) \, (s / m)^2

for the grid of i columns and j rows, min <= ij <= max, whose i/j is closest to
width/height; s patches on a side of a tile, merged m x m [1]_ [2]_.

References
----------
.. [1] Chen et al., "How Far Are We to GPT-4V?" (InternVL 1.5), arXiv:2404.16821,
   section 3.3.
.. [2] transformers 5.23, ``get_optimal_tiled_canvas`` in
   image_processing_pil_got_ocr2.py; processing_internvl.py.
"""

from __future__ import annotations

from functools import lru_cache

from costmodel.specs.vision_rules import TileRule
from costmodel.vision_tokens.layout import ImageSize, Segment, VideoSize, VisualLayout
from costmodel.vision_tokens.whole_tiles import check_features, whole_tiles

__all__ = ["assumed_layout", "layout", "tile_grid", "video_layout"]


@lru_cache(maxsize=32)
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) by number of tiles; equal numbers by columns, as in transformers."""
    grids = (
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
        if columns * rows >= min_tiles
    )
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def tile_grid(rule: TileRule, image: ImageSize) -> tuple[int, int]:
    """Choose the grid of tiles.

    Of two grids equally close in aspect ratio the one with more tiles wins if the
    image has more than half its pixels.

    Parameters
    ----------
    rule : TileRule
        Tile size [pixels] and bounds of the number of tiles.
    image : ImageSize
        The image [pixels].

    Returns
    -------
    (int, int)
        (columns, rows).

    Examples
    --------
    >>> rule = TileRule(tile_size=448, patch_size=14)
    >>> tile_grid(rule, ImageSize(640, 480)), tile_grid(rule, ImageSize(672, 672))
    ((4, 3), (2, 2))
    """
    aspect_ratio = image.width / image.height
    area = image.width * image.height
    best, best_difference = (1, 1), float("inf")
    for columns, rows in _grids(rule.min_tiles, rule.max_tiles):
        # A tie is float equality, as in transformers: 1 is a tie between 2/2 and 3/3,
        # but 1/2 is none between 1/3 and 2/3, whose floats are not equally far.
        difference = abs(aspect_ratio - columns / rows)
        large = area > 0.5 * rule.tile_size * rule.tile_size * columns * rows
        if difference < best_difference or (difference == best_difference and large):
            best, best_difference = (columns, rows), difference
    return best


def _tile_sides(rule: TileRule) -> tuple[int, int]:
    side = rule.tile_size // rule.patch_size
    return side, side // rule.merge


def layout(rule: TileRule, image: ImageSize) -> VisualLayout:
    """Lay out one image; each image of a request is treated alike.

    Parameters
    ----------
    rule : TileRule
        Tile, patch size, merge and bounds of the number of tiles.
    image : ImageSize
        The image [pixels].

    Returns
    -------
    VisualLayout
        One tower sequence per tile, and one for the thumbnail of several tiles;
        markers are image start and end.

    Notes
    -----
    The count falls where the image grows past a better ratio: 640x480 takes 4 x 3
    tiles and 1920x1080 only 4 x 2.

    Examples
    --------
    >>> rule = TileRule(tile_size=448, patch_size=14)
    >>> layout(rule, ImageSize(640, 480)).features, layout(rule, ImageSize(1920, 1080)).features
    (3328, 2304)
    """
    side, merged = _tile_sides(rule)
    columns, rows = tile_grid(rule, image)
    thumbnail = rule.thumbnail and columns * rows > 1
    tiles = columns * rows + thumbnail
    tokens = tiles * merged * merged
    return VisualLayout(
        segments=(Segment(tiles, side, side),),
        projected=tokens,
        features=tokens,
        markers=rule.markers_per_image,
        grid=(merged, merged),
        notes=(
            f"{image} in {rows} x {columns} tiles of {rule.tile_size}"
            + (" and a thumbnail" if thumbnail else ""),
        ),
    )


def video_layout(rule: TileRule, video: VideoSize) -> VisualLayout:
    r"""Lay out one video: one tile per frame, each with its label.

    The prompt is ``Frame1: <img>...</img>\nFrame2: <img>...</img>``.  Markers count
    start and end of each frame, the newlines between, and the labels:
    `frame_label_tokens` and one token per digit of the frame number, as Qwen2's
    tokenizer splits them.

    Parameters
    ----------
    rule : TileRule
        Tile, patch size and merge.
    video : VideoSize
        Frame size [pixels], which does not matter, and sampled frames.

    Returns
    -------
    VisualLayout
        One tower sequence per frame.

    Examples
    --------
    >>> rule = TileRule(tile_size=448, patch_size=14)
    >>> found = video_layout(rule, VideoSize(640, 480, 10))
    >>> found.features, found.markers
    (2560, 70)
    """
    side, merged = _tile_sides(rule)
    digits = sum(len(str(frame)) for frame in range(1, video.frames + 1))
    tokens = video.frames * merged * merged
    return VisualLayout(
        segments=(Segment(video.frames, side, side),),
        projected=tokens,
        features=tokens,
        markers=video.frames * (rule.markers_per_image + rule.frame_label_tokens)
        + digits
        + video.frames
        - 1,
        grid=(merged, merged),
        notes=(f"{video}: each frame one tile of {rule.tile_size}, with a label",),
    )


def assumed_layout(rule: TileRule, features: int) -> VisualLayout:
    """Lay out a given number of tokens: the fewest tiles that hold them.

    Parameters
    ----------
    rule : TileRule
        Tile, patch size and merge.
    features : int
        Visual tokens.

    Returns
    -------
    VisualLayout
        ``ceil(features / tokens per tile)`` full tiles.

    Raises
    ------
    InputError
        If `features` is not a count in range.

    Examples
    --------
    >>> assumed_layout(TileRule(tile_size=448, patch_size=14), 1280).tower_sequences
    5
    """
    side, merged = _tile_sides(rule)
    tiles = -(-check_features(features) // (merged * merged))
    tile = Segment(1, side, side)
    return whole_tiles(features, tiles, tile, merged * merged, (merged, merged))
