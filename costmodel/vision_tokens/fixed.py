r"""Every image becomes one square: LLaVA-1.5, VILA-1.5.

.. math:: N = \lceil s / m \rceil^2 + c, \qquad s = \lfloor S / p \rfloor

for image size S, patch size p, merge m and class token c (0 or 1) [1]_ [2]_.

References
----------
.. [1] Liu et al., "Improved Baselines with Visual Instruction Tuning",
   arXiv:2310.03744, section 3; transformers 5.23, processing_llava.py.
.. [2] Lin et al., "VILA: On Pre-training for Visual Language Models",
   arXiv:2312.07533; the 2x2 downsample of VILA-1.5 pads 27 x 27 to 28 x 28.
"""

from __future__ import annotations

from costmodel.specs.vision_rules import FixedRule
from costmodel.vision_tokens.layout import ImageSize, Segment, VisualLayout
from costmodel.vision_tokens.whole_tiles import check_features, whole_tiles

__all__ = ["assumed_layout", "layout"]


def _shape(rule: FixedRule) -> tuple[int, int, int]:
    """Patches and merged units on a side, then tokens of one image."""
    patches = rule.image_size // rule.patch_size
    merged = -(-patches // rule.merge)
    return patches, merged, merged * merged + rule.class_token


def layout(rule: FixedRule, image: ImageSize) -> VisualLayout:
    """Lay out one image; the count does not depend on its size.

    Parameters
    ----------
    rule : FixedRule
        Image size, patch size and merge.
    image : ImageSize
        The image [pixels].

    Returns
    -------
    VisualLayout
        One tower sequence; tokens of one square.

    Examples
    --------
    >>> llava = FixedRule(image_size=336, patch_size=14)
    >>> layout(llava, ImageSize(1920, 1080)).features
    576
    >>> vila = FixedRule(image_size=384, patch_size=14, merge=2)
    >>> layout(vila, ImageSize(1920, 1080)).grid
    (14, 14)
    """
    patches, merged, tokens = _shape(rule)
    return VisualLayout(
        segments=(Segment(1, patches, patches),),
        projected=tokens,
        features=tokens,
        grid=None if rule.class_token else (merged, merged),
        notes=(f"{image} resized or padded to {rule.image_size}x{rule.image_size}",),
    )


def assumed_layout(rule: FixedRule, features: int) -> VisualLayout:
    """Lay out a given number of tokens: the fewest images that hold them.

    Parameters
    ----------
    rule : FixedRule
        Image size, patch size and merge.
    features : int
        Visual tokens.

    Returns
    -------
    VisualLayout
        ``ceil(features / tokens per image)`` full images.

    Raises
    ------
    InputError
        If `features` is not a count in range.

    Examples
    --------
    >>> assumed_layout(FixedRule(image_size=336, patch_size=14), 600).tower_sequences
    2
    """
    patches, merged, tokens = _shape(rule)
    tiles = -(-check_features(features) // tokens)
    grid = None if rule.class_token else (merged, merged)
    return whole_tiles(features, tiles, Segment(1, patches, patches), tokens, grid)
