r"""LLaVA-NeXT: tiles of the best canvas without padding, newline tokens, a base image.

.. math:: N = h' (w' + 1) + s^2 + c

where s is the patches on a side of a tile, (h', w') the patch grid of the chosen
canvas after unpadding, and c the class token of the base image (0 or 1) [1]_ [2]_.

References
----------
.. [1] Liu et al., "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge",
   https://llava-vl.github.io/blog/2024-01-30-llava-next/.
.. [2] transformers 5.23, processing_llava_next.py: ``_get_number_of_features`` and
   ``_get_unpadded_features``.
"""

from __future__ import annotations

from costmodel.specs.vision_rules import AnyresRule
from costmodel.vision_tokens.canvas import best_canvas, tiles_for, unpadded
from costmodel.vision_tokens.layout import ImageSize, Segment, VisualLayout
from costmodel.vision_tokens.whole_tiles import check_features, whole_tiles

__all__ = ["assumed_layout", "layout"]


def layout(rule: AnyresRule, image: ImageSize) -> VisualLayout:
    """Lay out one image; each image of a request is treated alike.

    The published 2880 for 672x672 counts five tiles of 576 without the 48 newline
    tokens; the prompt holds 2928.

    Parameters
    ----------
    rule : AnyresRule
        Tile, patch size and canvases.
    image : ImageSize
        The image [pixels].

    Returns
    -------
    VisualLayout
        Tower sequences: the canvas' tiles and the base image.

    Notes
    -----
    `class_token` follows transformers' processor, which counts the token of the
    base image only: a class token has no place in the unpadded grid.

    Examples
    --------
    >>> rule = AnyresRule(tile_size=336, patch_size=14, pinpoints=((336, 672), (672, 672)))
    >>> found = layout(rule, ImageSize(672, 672))
    >>> found.features, found.projected, found.tower_sequences
    (2928, 2880, 5)
    """
    side = rule.tile_size // rule.patch_size
    canvas_height, canvas_width = best_canvas(image, rule.pinpoints)
    rows, columns = canvas_height // rule.tile_size, canvas_width // rule.tile_size
    height, width = unpadded(image, rows * side, columns * side)
    tiles = rows * columns + 1
    return VisualLayout(
        segments=(Segment(tiles, side, side),),
        projected=tiles * (side * side + rule.class_token),
        features=height * (width + 1) + side * side + rule.class_token,
        notes=(
            f"{image} on a canvas of {canvas_width}x{canvas_height}: {rows} x {columns} tiles "
            f"and the base image; {height} x {width} patches shown, {height} newline tokens",
        ),
    )


def assumed_layout(rule: AnyresRule, features: int) -> VisualLayout:
    """Lay out a given number of tokens.

    Parameters
    ----------
    rule : AnyresRule
        Tile, patch size and canvases.
    features : int
        Visual tokens.

    Returns
    -------
    VisualLayout
        ``ceil(features / tokens per tile)`` full tiles, but never more per image
        than the canvas with the most tokens has.

    Raises
    ------
    InputError
        If `features` is not a count in range.

    Examples
    --------
    >>> rule = AnyresRule(tile_size=336, patch_size=14, pinpoints=((336, 672), (672, 672)))
    >>> assumed_layout(rule, 2928).projected, assumed_layout(rule, 576).projected
    (2880, 576)
    """
    check_features(features)
    side = rule.tile_size // rule.patch_size
    per_tile = side * side + rule.class_token
    full = max(
        (layout(rule, ImageSize(width, height)) for height, width in rule.pinpoints),
        key=lambda found: found.features,
    )
    tiles = tiles_for(features, per_tile, full.features, full.tower_sequences)
    return whole_tiles(features, tiles, Segment(1, side, side), per_tile, None)
