r"""Qwen2-VL and Qwen2.5-VL: both sides rounded to whole merged patches, area bounded.

With f = patch_size * merge and :math:`\bar x = f \cdot \mathrm{round}(x / f)`,

.. math::
   (\bar h, \bar w) &\to f \lfloor (h, w) / (\beta f) \rfloor,\
   \beta = \sqrt{hw / P_\max} \quad \text{if } \bar h \bar w > P_\max \\
   (\bar h, \bar w) &\to f \lceil (h, w) \beta / f \rceil,\
   \beta = \sqrt{P_\min / (hw)} \quad \text{if } \bar h \bar w < P_\min

and N = t (h/f)(w/f), where t = 1 for an image and ceil(frames / 2) for a video
[1]_ [2]_.

References
----------
.. [1] Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the
   World at Any Resolution", arXiv:2409.12191, section 2.1.
.. [2] transformers 5.23, ``smart_resize`` in image_processing_qwen2_vl.py and
   video_processing_qwen2_vl.py.
"""

from __future__ import annotations

import math

from costmodel.errors import InputError
from costmodel.specs.vision_rules import SmartResizeRule
from costmodel.vision_tokens.layout import ImageSize, Segment, VideoSize, VisualLayout
from costmodel.vision_tokens.whole_tiles import check_features

__all__ = ["assumed_layout", "layout", "resized", "video_layout"]

# qwen-vl-utils leaves a tenth of the tokens to the text, and lets a long video
# shrink its frames to 1.05 times the smallest area, not below.
_VIDEO_SHARE = 0.9
_VIDEO_FLOOR = 1.05


def resized(
    width: int, height: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Size after the resize.

    Parameters
    ----------
    width, height : int
        Sides before [pixels].
    factor : int
        Both sides become multiples of it [pixels].
    min_pixels, max_pixels : int
        Bounds of the area [pixels].

    Returns
    -------
    (int, int)
        (width, height) [pixels].

    Notes
    -----
    A very long image keeps at least `factor` on its short side and may then exceed
    `max_pixels`, as in transformers.

    Examples
    --------
    >>> resized(640, 480, 28, 3136, 1003520)
    (644, 476)
    """
    # Python's round: halves go to the even multiple (14 / 28 -> 0), as in transformers,
    # and a side rounded to 0 ends in the branch below the smallest area.
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > max_pixels:
        beta = math.sqrt((height * width) / max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_width, new_height


def _check_ratio(field: str, size: ImageSize | VideoSize, limit: float) -> None:
    ratio = max(size.width, size.height) / min(size.width, size.height)
    if ratio > limit:
        raise InputError(
            field, str(size), f"an aspect ratio of at most {limit:g} (this is {ratio:.1f})"
        )


def _describe(
    rule: SmartResizeRule, before: ImageSize | VideoSize, width: int, height: int, steps: int
) -> VisualLayout:
    rows, columns = height // rule.patch_size, width // rule.patch_size
    grid = (rows // rule.merge, columns // rule.merge)
    tokens = steps * grid[0] * grid[1]
    return VisualLayout(
        segments=(Segment(steps, rows, columns),),
        projected=tokens,
        features=tokens,
        markers=rule.markers_per_image,
        grid=grid,
        notes=(f"{before} resized to {width}x{height}: {rows} x {columns} patches",),
    )


def layout(rule: SmartResizeRule, image: ImageSize) -> VisualLayout:
    """Lay out one image; each image of a request is treated alike.

    An image is repeated to fill the temporal patch and is one tower sequence.

    Parameters
    ----------
    rule : SmartResizeRule
        Patch size, merge and area bounds [pixels].
    image : ImageSize
        The image [pixels].

    Returns
    -------
    VisualLayout
        One tower sequence; markers are vision start and end.

    Raises
    ------
    InputError
        If one side is more than `max_aspect_ratio` times the other.

    Examples
    --------
    >>> rule = SmartResizeRule(patch_size=14, merge=2, min_pixels=3136, max_pixels=1003520)
    >>> found = layout(rule, ImageSize(640, 480))
    >>> found.features, found.grid, found.tokens
    (391, (17, 23), 393)
    """
    _check_ratio("image", image, rule.max_aspect_ratio)
    factor = rule.patch_size * rule.merge
    width, height = resized(image.width, image.height, factor, rule.min_pixels, rule.max_pixels)
    return _describe(rule, image, width, height, steps=1)


def video_layout(rule: SmartResizeRule, video: VideoSize) -> VisualLayout:
    """Lay out one video: a tower sequence per pair of frames.

    The last frame is repeated until the frames fill the temporal patches.

    Parameters
    ----------
    rule : SmartResizeRule
        Patch size, merge, temporal patch and the area bounds of a frame [pixels].
    video : VideoSize
        Frame size [pixels] and sampled frames.

    Returns
    -------
    VisualLayout
        ``ceil(frames / temporal_patch_size)`` tower sequences.

    Raises
    ------
    InputError
        If one side is more than `max_aspect_ratio` times the other.

    Examples
    --------
    >>> rule = SmartResizeRule(patch_size=14, merge=2, min_pixels=3136, max_pixels=1003520)
    >>> found = video_layout(rule, VideoSize(640, 480, 15))
    >>> found.tower_sequences, found.features
    (8, 3128)
    """
    _check_ratio("video", video, rule.max_aspect_ratio)
    factor = rule.patch_size * rule.merge
    max_pixels = rule.video_max_pixels
    if rule.max_video_tokens is not None:
        total = int(rule.max_video_tokens * factor * factor * _VIDEO_SHARE)
        share = total * rule.temporal_patch_size // video.frames
        max_pixels = max(min(max_pixels, share), int(rule.video_min_pixels * _VIDEO_FLOOR))
    width, height = resized(video.width, video.height, factor, rule.video_min_pixels, max_pixels)
    steps = -(-video.frames // rule.temporal_patch_size)
    return _describe(rule, video, width, height, steps)


def assumed_layout(rule: SmartResizeRule, features: int) -> VisualLayout:
    """Lay out a given number of tokens: one image, as square as the count allows.

    Parameters
    ----------
    rule : SmartResizeRule
        Patch size and merge.
    features : int
        Visual tokens.

    Returns
    -------
    VisualLayout
        One tower sequence of ``features * merge**2`` patches.  Its height in merged
        patches is the largest divisor of `features` up to the square root: 1 for a
        prime, a shape that no real image of that count would have.

    Raises
    ------
    InputError
        If `features` is not a count in range.

    Examples
    --------
    >>> rule = SmartResizeRule(patch_size=14, merge=2, min_pixels=3136, max_pixels=1003520)
    >>> assumed_layout(rule, 391).grid, assumed_layout(rule, 577).grid
    ((17, 23), (1, 577))
    """
    check_features(features)
    rows = next(rows for rows in range(math.isqrt(features), 0, -1) if features % rows == 0)
    columns = features // rows
    return VisualLayout(
        segments=(Segment(1, rows * rule.merge, columns * rule.merge),),
        projected=features,
        features=features,
        grid=(rows, columns),
        notes=(f"{features} visual tokens assumed as {rows} x {columns}",),
    )
