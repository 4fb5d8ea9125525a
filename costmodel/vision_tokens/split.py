r"""Idefics3 and SmolVLM: resize to a longest edge, cut into tiles, add a global image.

.. math:: N = (rc + 1) (s / m)^2

for r rows and c columns of tiles with s patches on a side, merged m x m; N is one
tile where the resized image fits into it [1]_ [2]_.

References
----------
.. [1] Laurencon et al., "Building and better understanding vision-language models",
   arXiv:2408.12637, section 4.2; Marafioti et al., "SmolVLM", arXiv:2504.05299.
.. [2] transformers 5.23, image_processing_pil_idefics3.py (SmolVLM's is the same),
   processing_idefics3.py, processing_smolvlm.py.
"""

from __future__ import annotations

import math

from costmodel.specs.vision_rules import SplitRule
from costmodel.vision_tokens.layout import ImageSize, Segment, VisualLayout
from costmodel.vision_tokens.whole_tiles import check_features, whole_tiles

__all__ = ["MAX_EDGE", "assumed_layout", "layout", "split_grid"]

MAX_EDGE = 4096
"""No image is resized beyond it [pixels] (``MAX_IMAGE_SIZE`` in transformers)."""


def _to_longest_edge(width: int, height: int, edge: int) -> tuple[int, int]:
    """Scale up or down so that the longer side is `edge`; the other becomes even."""
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
        height += height % 2
    else:
        width, height = int(edge * ratio), edge
        width += width % 2
    return max(width, 1), max(height, 1)


def _below(width: int, height: int, edge: int) -> tuple[int, int]:
    """Scale down so that no side exceeds `edge`."""
    ratio = width / height
    if width >= height and width > edge:
        width, height = edge, int(edge / ratio)
    elif height > width and height > edge:
        width, height = int(edge * ratio), edge
    return max(width, 1), max(height, 1)


def split_grid(rule: SplitRule, image: ImageSize) -> tuple[int, int]:
    """Rows and columns of tiles; (0, 0) where the image is not cut.

    Parameters
    ----------
    rule : SplitRule
        Tile size and longest edge [pixels].
    image : ImageSize
        The image [pixels].

    Returns
    -------
    (int, int)
        (rows, columns), without the global image.

    Notes
    -----
    This follows the images that transformers really cuts.  Its shortcut
    ``get_number_of_image_patches`` leaves out the last rescaling; both agree where
    `longest_edge` is a multiple of `tile_size`, as in every released model.

    Examples
    --------
    >>> rule = SplitRule(tile_size=364, patch_size=14, merge=2, longest_edge=1456)
    >>> split_grid(rule, ImageSize(640, 480))
    (3, 4)
    """
    if not rule.split:
        return 0, 0
    tile = rule.tile_size
    width, height = _to_longest_edge(image.width, image.height, rule.longest_edge)
    width, height = _below(width, height, MAX_EDGE)
    # The ratio is divided out again as in transformers: int(w / (w / h)) may be h - 1.
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / tile)
        rows = math.ceil(int(columns * tile / ratio) / tile)
    else:
        rows = math.ceil(height / tile)
        columns = math.ceil(int(rows * tile * ratio) / tile)
    return (rows, columns) if rows > 1 or columns > 1 else (0, 0)


def layout(rule: SplitRule, image: ImageSize) -> VisualLayout:
    r"""Lay out one image; each image of a request is treated alike.

    Markers count what the processor writes around the image tokens: before each
    tile ``<fake_token_around_image>`` and ``<row_i_col_j>``; ``\n`` after each row;
    ``\n`` and ``<fake_token_around_image>`` and ``<global-img>`` before the global
    image, and a last ``<fake_token_around_image>``.

    Parameters
    ----------
    rule : SplitRule
        Tile, patch size, merge, longest edge and the tokens per tag.
    image : ImageSize
        The image [pixels].

    Returns
    -------
    VisualLayout
        One tower sequence per tile and one for the global image.

    Notes
    -----
    Assumed of the tokenizer: ``<fake_token_around_image>`` and ``\n`` are one token
    each, and so is ``\n\n`` (after the last row), as in those of Llama-3 and
    SmolLM2.  How many tokens a tag takes differs by checkpoint and is part of the
    rule; transformers' ``_get_num_multimodal_tokens`` always counts one and so
    differs from the prompt that it encodes for Idefics3-8B.

    Examples
    --------
    >>> rule = SplitRule(tile_size=364, patch_size=14, merge=2, longest_edge=1456)
    >>> found = layout(rule, ImageSize(640, 480))
    >>> found.features, found.markers
    (2197, 30)
    """
    side = rule.tile_size // rule.patch_size
    merged = side // rule.merge
    rows, columns = split_grid(rule, image)
    tiles = rows * columns + 1
    tokens = tiles * merged * merged
    # The last row's newline and the one before the global image are one token.
    tile_markers = rows * columns * (1 + rule.tile_tag_tokens) + rows
    cut = f"{rows} x {columns} tiles and the global image" if rows else "the global image only"
    return VisualLayout(
        segments=(Segment(tiles, side, side),),
        projected=tokens,
        features=tokens,
        markers=tile_markers + 2 + rule.global_tag_tokens,
        grid=(merged, merged),
        notes=(f"{image} as {cut}, each {rule.tile_size}x{rule.tile_size}",),
    )


def assumed_layout(rule: SplitRule, features: int) -> VisualLayout:
    """Lay out a given number of tokens: the fewest tiles that hold them.

    Parameters
    ----------
    rule : SplitRule
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
    >>> rule = SplitRule(tile_size=364, patch_size=14, merge=2, longest_edge=1456)
    >>> assumed_layout(rule, 2873).tower_sequences
    17
    """
    side = rule.tile_size // rule.patch_size
    merged = side // rule.merge
    tiles = -(-check_features(features) // (merged * merged))
    tile = Segment(1, side, side)
    return whole_tiles(features, tiles, tile, merged * merged, (merged, merged))
