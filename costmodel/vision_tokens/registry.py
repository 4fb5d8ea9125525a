"""From a model's image rule and a request's images to one layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.errors import UnsupportedError
from costmodel.specs.vision_rules import ImageRule
from costmodel.vision_tokens import anyres, anyres_max, fixed, smart_resize, split, tile
from costmodel.vision_tokens.layout import ImageSize, VideoSize, VisualLayout, combine

__all__ = ["RULES", "RuleFunctions", "assumed_visual_layout", "image_layouts", "visual_layout"]

# Each function takes its own rule class first; the registry pairs them by name.
ImageFunction = Callable[[Any, ImageSize], VisualLayout]
VideoFunction = Callable[[Any, VideoSize], VisualLayout]
AssumedFunction = Callable[[Any, int], VisualLayout]


@dataclass(frozen=True)
class RuleFunctions:
    """What a rule module offers.

    Attributes
    ----------
    families : str
        Model families that use the rule, for messages.
    image : callable
        (rule, ImageSize) -> VisualLayout of the only image of a prompt.
    assumed : callable
        (rule, features) -> VisualLayout of a given number of tokens.
    video : callable, optional
        (rule, VideoSize) -> VisualLayout; None where the family takes no video.
    among_several : callable, optional
        Replaces `image` where a prompt has several images.
    """

    families: str
    image: ImageFunction
    assumed: AssumedFunction
    video: VideoFunction | None = None
    among_several: ImageFunction | None = None


RULES: dict[str, RuleFunctions] = {
    "fixed": RuleFunctions("LLaVA-1.5, VILA-1.5", fixed.layout, fixed.assumed_layout),
    "anyres": RuleFunctions("LLaVA-NeXT", anyres.layout, anyres.assumed_layout),
    "anyres_max": RuleFunctions(
        "LLaVA-OneVision",
        anyres_max.layout,
        anyres_max.assumed_layout,
        video=anyres_max.video_layout,
        among_several=anyres_max.layout_among_several,
    ),
    "smart_resize": RuleFunctions(
        "Qwen2-VL, Qwen2.5-VL",
        smart_resize.layout,
        smart_resize.assumed_layout,
        video=smart_resize.video_layout,
    ),
    "tile": RuleFunctions("InternVL", tile.layout, tile.assumed_layout, video=tile.video_layout),
    "split": RuleFunctions("Idefics3, SmolVLM", split.layout, split.assumed_layout),
}
"""The functions of each rule, by the rule's name in a model spec."""


def image_layouts(
    rule: ImageRule, images: Sequence[ImageSize], videos: Sequence[VideoSize] = ()
) -> list[VisualLayout]:
    """Lay out each image and video of one prompt.

    Parameters
    ----------
    rule : ImageRule
        The model's rule.
    images : sequence of ImageSize
        The prompt's images [pixels].
    videos : sequence of VideoSize, optional
        The prompt's videos: frame size [pixels] and sampled frames.

    Returns
    -------
    list of VisualLayout
        Images first, then videos.

    Raises
    ------
    InputError
        If the rule rejects a size.
    UnsupportedError
        If there are videos and the family takes none.

    Examples
    --------
    >>> from costmodel.specs.vision_rules import FixedRule
    >>> len(image_layouts(FixedRule(image_size=336, patch_size=14), [ImageSize(640, 480)] * 2))
    2
    """
    functions = RULES[rule.rule]
    if videos and functions.video is None:
        able = ", ".join(entry.families for entry in RULES.values() if entry.video is not None)
        raise UnsupportedError(
            "video", str(videos[0]), f"images only for {functions.families}; video works for {able}"
        )
    several = len(images) > 1 and functions.among_several is not None
    lay_out = functions.among_several if several else functions.image
    parts = [lay_out(rule, image) for image in images] if lay_out is not None else []
    if functions.video is not None:
        parts += [functions.video(rule, video) for video in videos]
    return parts


def visual_layout(
    rule: ImageRule, images: Sequence[ImageSize], videos: Sequence[VideoSize] = ()
) -> VisualLayout:
    """Lay out the images and videos of one prompt together.

    Parameters
    ----------
    rule, images, videos
        As in `image_layouts`, with the same errors.

    Returns
    -------
    VisualLayout
        The sum over all of them; empty without any.

    Examples
    --------
    >>> from costmodel.specs.vision_rules import FixedRule
    >>> visual_layout(FixedRule(image_size=336, patch_size=14), [ImageSize(640, 480)] * 2).features
    1152
    """
    return combine(image_layouts(rule, images, videos))


def assumed_visual_layout(rule: ImageRule, features: int) -> VisualLayout:
    """Lay out a given number of visual tokens, whatever image they come from.

    Parameters
    ----------
    rule : ImageRule
        The model's rule.
    features : int
        Visual tokens, kept exactly.

    Returns
    -------
    VisualLayout
        No markers; the tower sequences that such a count needs at least.

    Raises
    ------
    InputError
        If `features` is not a count in range.

    Examples
    --------
    >>> from costmodel.specs.vision_rules import FixedRule
    >>> assumed_visual_layout(FixedRule(image_size=336, patch_size=14), 2880).tower_sequences
    5
    """
    return RULES[rule.rule].assumed(rule, features)
