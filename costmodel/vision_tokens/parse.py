"""Read image and video sizes as people write them: ``672x672``, ``640x480x16``."""

from __future__ import annotations

import re

from costmodel.errors import InputError
from costmodel.vision_tokens.layout import IMAGE_SHAPE, VIDEO_SHAPE, ImageSize, VideoSize

__all__ = ["parse_image", "parse_video"]

# [0-9] rather than \d, which also matches digits of other scripts; nine of them
# are enough for any size and keep int() away from absurdly long input.
_NUMBER = r"\s*([0-9]{1,9})\s*"
_IMAGE = re.compile(_NUMBER + "[xX×]" + _NUMBER)
_VIDEO = re.compile(_NUMBER + "[xX×]" + _NUMBER + "[xX×]" + _NUMBER)


def parse_image(text: str) -> ImageSize:
    """Read the size of an image.

    Parameters
    ----------
    text : str
        WIDTHxHEIGHT [pixels]; the separator is ``x``, ``X`` or ``×``.

    Returns
    -------
    ImageSize
        The size.

    Raises
    ------
    InputError
        If the text has another form or a side is 0 or too large.

    Examples
    --------
    >>> parse_image("640x480")
    ImageSize(width=640, height=480)
    >>> parse_image("640x0")
    Traceback (most recent call last):
    ...
    costmodel.errors.InputError: image: '640x0' is not valid; expected WIDTHxHEIGHT in pixels, ...
    """
    match = _IMAGE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError("image", text, IMAGE_SHAPE)
    width, height = (int(number) for number in match.groups())
    return ImageSize(width, height)


def parse_video(text: str) -> VideoSize:
    """Read the size of a video.

    Parameters
    ----------
    text : str
        WIDTHxHEIGHTxFRAMES: sides [pixels] and sampled frames.

    Returns
    -------
    VideoSize
        The size.

    Raises
    ------
    InputError
        If the text has another form or a number is 0 or too large.

    Examples
    --------
    >>> parse_video("640x480x16")
    VideoSize(width=640, height=480, frames=16)
    """
    match = _VIDEO.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError("video", text, VIDEO_SHAPE)
    width, height, frames = (int(number) for number in match.groups())
    return VideoSize(width, height, frames)
