"""What LLaVA-NeXT and LLaVA-OneVision share: the canvas, and removing its padding.

Every expression repeats transformers' order of float operations: another order
rounds differently for a few sizes, and a count would be off by a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from costmodel.vision_tokens.layout import ImageSize

__all__ = ["best_canvas", "tiles_for", "unpadded"]


def best_canvas(image: ImageSize, pinpoints: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Choose the canvas that keeps most of the image's pixels, then wastes least.

    Parameters
    ----------
    image : ImageSize
        The image [pixels].
    pinpoints : iterable of (int, int)
        (height, width) of each canvas [pixels]; the first of equals wins.

    Returns
    -------
    (int, int)
        (height, width) of the chosen canvas [pixels].

    Notes
    -----
    ``select_best_resolution`` in transformers 5.23, image_processing_utils.py.

    Examples
    --------
    >>> best_canvas(ImageSize(640, 480), [(336, 672), (672, 336), (672, 672)])
    (672, 672)
    """
    best = (0, 0)
    best_score: tuple[int, int] | None = None
    for height, width in pinpoints:
        scale = min(width / image.width, height / image.height)
        shrunk = int(image.width * scale) * int(image.height * scale)
        effective = min(shrunk, image.width * image.height)
        score = (effective, effective - height * width)
        if best_score is None or score > best_score:
            best, best_score = (height, width), score
    return best


def unpadded(image: ImageSize, height: int, width: int) -> tuple[int, int]:
    """Remove the rows or columns of a patch grid that only hold padding.

    Parameters
    ----------
    image : ImageSize
        The image that was fitted into the grid [pixels].
    height, width : int
        The grid of the whole canvas [patches].

    Returns
    -------
    (int, int)
        (height, width) of the part that shows the image [patches].

    Notes
    -----
    ``unpad_image`` in transformers 5.23, modeling_llava_next.py.  The result can be
    0 columns wide for an image hundreds of times taller than wide, as there.

    Examples
    --------
    >>> unpadded(ImageSize(640, 480), 48, 48)
    (36, 48)
    """
    if image.width / image.height > width / height:
        shown = int(round(image.height * (width / image.width), 7))
        return height - (height - shown) // 2 * 2, width
    shown = int(round(image.width * (height / image.height), 7))
    return height, width - (width - shown) // 2 * 2


def tiles_for(features: int, per_tile: int, image_features: int, image_tiles: int) -> int:
    """Tiles to encode for an assumed number of tokens.

    Parameters
    ----------
    features : int
        Visual tokens.
    per_tile : int
        Tokens of one tile.
    image_features, image_tiles : int
        Tokens and tiles of one image that fills the largest canvas.  As newline
        tokens need no tile, such an image has more tokens than its tiles hold.

    Returns
    -------
    int
        Tiles: of whole images first, then of the rest.

    Examples
    --------
    >>> tiles_for(2928, 576, 2928, 5), tiles_for(2880, 576, 2928, 5), tiles_for(577, 576, 2928, 5)
    (5, 5, 2)
    """
    images, rest = divmod(features, image_features)
    return images * image_tiles + min(-(-rest // per_tile), image_tiles)
