"""Compression methods between the parts of a whole model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..models.shapes import ModelShape

__all__ = ["compressor", "read_request"]

Compress = Callable[[Any], Any]


def read_request(text: str) -> tuple[str, dict[str, str]]:
    """Return name and options of ``METHOD:key=value,...``.

    Examples
    --------
    >>> read_request("cluster:impl=fused,k=64")
    ('cluster', {'impl': 'fused', 'k': '64'})
    """
    name, _, rest = text.partition(":")
    return name, dict(item.split("=", 1) for item in rest.split(",") if item)


def compressor(text: str, shape: ModelShape, device: str, dtype: str) -> tuple[bool, Compress]:
    """Return what a method does to tokens.

    Parameters
    ----------
    text : str
        ``METHOD:key=value,...`` as of the command line.
    shape : ModelShape
        Sizes of the model; it has a vision tower.
    device, dtype : str
        Where, and the tidy name of the format.

    Returns
    -------
    replaces_projector : bool
        Whether it works on the tower's features and no projector runs.
    compress : callable
        Takes and returns tokens (batch, tokens, width).

    Raises
    ------
    ValueError
        If the method or an option is none of those that can be put into a model here.
    """
    name, options = read_request(text)
    if name not in _MAKERS:
        raise ValueError(f"compress: {name!r} is none of {', '.join(_MAKERS)}")
    replaces, make = _MAKERS[name]
    compress = make(options, shape, device, dtype)
    if options:
        raise ValueError(f"compress: {name} has no option {next(iter(options))!r} here")
    return replaces, compress


def _random(options: dict[str, str], *_: Any) -> Compress:
    from ..methods.random import keep_random

    kept = int(options.pop("k"))
    return lambda tokens: keep_random(tokens, kept)[0]


def _spatial(options: dict[str, str], shape: ModelShape, device: str, *_: Any) -> Compress:
    from ..methods.spatial import even_indices, keep_spatial

    indices = even_indices(shape.visual_tokens, int(options.pop("k"))).to(device)
    return lambda tokens: keep_spatial(tokens, indices)


def _cluster(options: dict[str, str], *_: Any) -> Compress:
    from ..methods.cluster import cluster_means

    return partial(
        cluster_means,
        kept=int(options.pop("k")),
        variant=options.pop("impl", "eager"),
        iterations=int(options.pop("iterations", "10")),
        check={"true": True, "false": False}.get(options.pop("check", "")),
    )


def _avgpool(options: dict[str, str], *_: Any) -> Compress:
    from ..methods.avgpool import average_windows

    return partial(average_windows, window=int(options.pop("window")))


def _stf(options: dict[str, str], shape: ModelShape, device: str, dtype: str) -> Compress:
    from ..methods.method import MethodCase
    from ..methods.modules import with_random_weights
    from ..methods.stf import SpatialTokenFusion

    if shape.vision is None:
        raise ValueError(f"{shape.name}: has no vision tower")
    width, window = shape.vision.width, int(options.pop("window"))
    kept = shape.visual_tokens // window**2
    case = MethodCase(1, shape.visual_tokens, kept, width, device, dtype)
    out = shape.decoder.width
    made: Compress = with_random_weights(lambda: SpatialTokenFusion(width, out, window), case)
    return made


_MAKERS: dict[str, tuple[bool, Callable[..., Compress]]] = {
    "random": (False, _random),
    "spatial": (False, _spatial),
    "cluster": (False, _cluster),
    "avgpool": (False, _avgpool),
    "stf": (True, _stf),
}
"""Methods by name: whether they replace the projector, and what makes them from options that they
take out of the mapping."""
