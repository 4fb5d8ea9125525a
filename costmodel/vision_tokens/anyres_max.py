r"""LLaVA-OneVision: anyres with a bounded feature map; one tile per further image or frame.

One image: the unpadded grid (h', w') of the chosen canvas is shrunk when it holds
more than `max_tiles` tiles of s x s patches,

.. math:: r = \sqrt{h' w' / (M s^2)}, \qquad
   (h'', w'') = (\lfloor h'/r \rfloor, \lfloor w'/r \rfloor) \text{ if } r > 1.1

and N = h''(w'' + 1) + s^2.  An image among several is one tile and a newline,
s^2 + 1.  A video of f frames is f ceil(s/2)^2 + 1 [1]_ [2]_.

References
----------
.. [1] Li et al., "LLaVA-OneVision: Easy Visual Task Transfer", arXiv:2408.03326,
   section 3.2.
.. [2] transformers 5.23, processing_llava_onevision.py and ``pack_image_features``,
   ``apply_pooling`` in modeling_llava_onevision.py.
"""

from __future__ import annotations

import math

from costmodel.specs.vision_rules import AnyresMaxRule
from costmodel.vision_tokens.canvas import best_canvas, tiles_for, unpadded
from costmodel.vision_tokens.layout import ImageSize, Segment, VideoSize, VisualLayout
from costmodel.vision_tokens.whole_tiles import check_features, whole_tiles

__all__ = ["assumed_layout", "layout", "layout_among_several", "video_layout"]

# Below it the map is kept although it is a little too large.
_SHRINK_ABOVE = 1.1


def layout(rule: AnyresMaxRule, image: ImageSize) -> VisualLayout:
    """Lay out the only image of a prompt.

    The tower and the projector see every tile of the canvas; only the projected
    map is shrunk.

    Parameters
    ----------
    rule : AnyresMaxRule
        Tile, patch size, canvases and `max_tiles`.
    image : ImageSize
        The image [pixels].

    Returns
    -------
    VisualLayout
        Tower sequences: the canvas' tiles and the base image.

    Examples
    --------
    >>> sides = (384, 768, 1152, 1536, 1920, 2304)
    >>> rule = AnyresMaxRule(
    ...     tile_size=384, patch_size=14, pinpoints=tuple((h, w) for h in sides for w in sides)
    ... )
    >>> found = layout(rule, ImageSize(1920, 1080))
    >>> found.features, found.tower_sequences
    (7269, 16)
    """
    side = rule.tile_size // rule.patch_size
    canvas_height, canvas_width = best_canvas(image, rule.pinpoints)
    rows, columns = canvas_height // rule.tile_size, canvas_width // rule.tile_size
    height, width = unpadded(image, rows * side, columns * side)
    # Square root and floor division of floats, as in transformers: whole-number
    # arithmetic can differ by a row where the quotient is close to an integer.
    ratio = math.sqrt(height * width / (rule.max_tiles * side**2))
    if ratio > _SHRINK_ABOVE:
        height, width = int(height // ratio), int(width // ratio)
    tiles = rows * columns + 1
    return VisualLayout(
        segments=(Segment(tiles, side, side),),
        projected=tiles * side * side,
        features=height * (width + 1) + side * side,
        notes=(
            f"{image} on a canvas of {canvas_width}x{canvas_height}: {rows} x {columns} tiles "
            f"and the base image; {height} x {width} features, {height} newline tokens",
        ),
    )


def layout_among_several(rule: AnyresMaxRule, image: ImageSize) -> VisualLayout:
    """Lay out one of several images of a prompt: one padded tile and a newline token.

    Parameters
    ----------
    rule : AnyresMaxRule
        Tile and patch size.
    image : ImageSize
        The image [pixels]; its size does not matter.

    Returns
    -------
    VisualLayout
        One tower sequence.

    Notes
    -----
    transformers does so when the images of a prompt come as one list, as its chat
    template passes them (``batch_num_images`` > 1); a flat list of images given to
    the processor counts as one image per prompt and each takes its own canvas.
    The original repository agrees: 729 features, then a newline where the merge
    type has "unpad".  The paper's count per image leaves the newline out.

    Examples
    --------
    >>> rule = AnyresMaxRule(tile_size=384, patch_size=14, pinpoints=((384, 384),))
    >>> layout_among_several(rule, ImageSize(1920, 1080)).features
    730
    """
    side = rule.tile_size // rule.patch_size
    return VisualLayout(
        segments=(Segment(1, side, side),),
        projected=side * side,
        features=side * side + 1,
        notes=(f"{image} padded to one tile, as one of several images",),
    )


def video_layout(rule: AnyresMaxRule, video: VideoSize) -> VisualLayout:
    """Lay out one video: each frame a pooled tile, one newline token at the end.

    Parameters
    ----------
    rule : AnyresMaxRule
        Tile, patch size and `video_pool`.
    video : VideoSize
        Frame size [pixels], which does not matter, and sampled frames.

    Returns
    -------
    VisualLayout
        One tower sequence per frame; the projector runs before the pooling.

    Notes
    -----
    The original repository can also put a newline after each frame or each row
    (``mm_newline_position``); this is its "one_token", which transformers follows.

    Examples
    --------
    >>> rule = AnyresMaxRule(tile_size=384, patch_size=14, pinpoints=((384, 384),))
    >>> video_layout(rule, VideoSize(640, 480, 32)).features
    6273
    """
    side = rule.tile_size // rule.patch_size
    pooled = -(-side // rule.video_pool)
    return VisualLayout(
        segments=(Segment(video.frames, side, side),),
        projected=video.frames * side * side,
        features=video.frames * pooled * pooled + 1,
        notes=(f"{video}: each frame one tile, pooled to {pooled} x {pooled}, one newline token",),
    )


def assumed_layout(rule: AnyresMaxRule, features: int) -> VisualLayout:
    """Lay out a given number of tokens.

    As the map is shrunk after the projector, many more tiles may have been encoded
    than the tokens show: this is the least.

    Parameters
    ----------
    rule : AnyresMaxRule
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
    >>> rule = AnyresMaxRule(tile_size=384, patch_size=14, pinpoints=((384, 384), (768, 768)))
    >>> assumed_layout(rule, 3699).tower_sequences
    5
    """
    check_features(features)
    side = rule.tile_size // rule.patch_size
    full = max(
        (layout(rule, ImageSize(width, height)) for height, width in rule.pinpoints),
        key=lambda found: found.features,
    )
    tiles = tiles_for(features, side * side, full.features, full.tower_sequences)
    return whole_tiles(features, tiles, Segment(1, side, side), side * side, None)
