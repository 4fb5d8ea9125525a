"""Layouts for a token count that the user fixed instead of an image size."""

from __future__ import annotations

from costmodel.errors import InputError
from costmodel.vision_tokens.layout import Segment, VisualLayout

__all__ = ["MAX_FEATURES", "check_features", "whole_tiles"]

MAX_FEATURES = 10_000_000
"""Most visual tokens that may be assumed."""


def check_features(features: int) -> int:
    """Return `features` if it is a count that can be assumed.

    Parameters
    ----------
    features : int
        Visual tokens.

    Returns
    -------
    int
        The same number.

    Raises
    ------
    InputError
        If it is no int from 1 to `MAX_FEATURES`.

    Examples
    --------
    >>> check_features(576)
    576
    """
    whole = isinstance(features, int) and not isinstance(features, bool)
    if not whole or not 1 <= features <= MAX_FEATURES:
        raise InputError("visual_tokens", features, f"a whole number from 1 to {MAX_FEATURES:,}")
    return features


def whole_tiles(
    features: int, tiles: int, tile: Segment, rows_per_tile: int, grid: tuple[int, int] | None
) -> VisualLayout:
    """Describe `features` tokens that `tiles` full tiles have to be encoded for.

    Parameters
    ----------
    features : int
        Visual tokens, kept exactly.
    tiles : int
        Tiles that the tower encodes.
    tile : Segment
        Shape of one tile [patches]; its count is ignored.
    rows_per_tile : int
        Rows that leave the projector per tile.
    grid : tuple of int, optional
        (rows, columns) of one tile, kept where `features` fills the tiles exactly.

    Returns
    -------
    VisualLayout
        The layout, without markers.

    Examples
    --------
    >>> whole_tiles(600, 2, Segment(1, 24, 24), 576, (24, 24)).projected
    1152
    """
    exact = features == tiles * rows_per_tile
    return VisualLayout(
        segments=(Segment(tiles, tile.height_patches, tile.width_patches),),
        projected=tiles * rows_per_tile,
        features=features,
        grid=grid if exact else None,
        notes=(f"{features} visual tokens assumed; {tiles} full tile(s) encoded",),
    )
