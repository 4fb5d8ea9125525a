"""Plotly figures as files: self-contained HTML, or an image where kaleido is installed."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.errors import InputError
from costmodel.files import check_output, write_bytes, write_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["check_figure_output", "missing_for_images", "write_figure"]

_IMAGES = (".png", ".svg", ".pdf")


def check_figure_output(path: str | os.PathLike[str]) -> Path:
    """Return the path if a figure can be written there.

    Raises
    ------
    InputError
        If no file can be written there, its ending is unknown, or it is an
        image and kaleido or a browser is not installed.
    """
    target = check_output(path, (".html", *_IMAGES))
    if target.suffix.lower() in _IMAGES and (missing := missing_for_images()):
        raise InputError(
            "output", os.fspath(path), f"a name that ends in .html; images need {missing}"
        )
    return target


def missing_for_images() -> str:
    """Return what has to be installed before images can be drawn; empty if nothing."""
    if importlib.util.find_spec("kaleido") is None:
        return "the package kaleido (pip install 'costmodel[images]')"
    # What kaleido itself looks for, so that nothing is computed before it fails.
    from choreographer.browsers.chromium import Chromium

    browser = Chromium.find_browser(skip_local=False)
    if browser is None or not os.access(browser, os.X_OK):
        return "the browser chromium (apt install chromium, or the command kaleido_get_chrome)"
    return ""


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the ending of `path` decides on the format.

    An HTML file holds the plotting library, so that it opens without a network.

    Raises
    ------
    InputError
        If it cannot be written or drawn.
    """
    target = check_figure_output(path)
    if target.suffix.lower() not in _IMAGES:
        html = figure.to_html(
            include_plotlyjs=True, div_id="figure", default_height="90vh",
            config={"displaylogo": False},
        )  # fmt: skip
        write_text(target, html)
        return
    if target.suffix.lower() == ".pdf":
        figure = _without_hatches(figure)
    # The browser's own messages, which are not JSON, are logged as errors.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    try:
        image = figure.to_image(
            format=target.suffix.lower()[1:], width=figure.layout.width or 1200,
            height=figure.layout.height or 750, scale=2,
        )  # fmt: skip
    except (RuntimeError, ValueError, ImportError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError("output", str(target), f"a name that ends in .html ({reason})") from None
    write_bytes(target, image)


def _without_hatches(figure: Figure) -> Figure:
    """Bars in plain colours: chromium writes every stroke of a hatch, for minutes."""
    from plotly.graph_objects import Figure

    plain = Figure(figure)
    plain.update_traces(marker={"pattern": {"shape": ""}}, selector={"type": "bar"})
    return plain
