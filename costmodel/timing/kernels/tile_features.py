r"""What decides, beside the sizes, which kernel a library picks: how tiles fit a product.

Two products of nearly the same size may need a tile more or less, or leave a wave of
thread blocks nearly empty.  Libraries know that and choose other kernels for them, so
that a correction learned from one holds for the other only where these agree too.
"""

from __future__ import annotations

import re

import numpy as np

from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import FloatArray, Shapes

__all__ = ["tile_features"]

_NAME = re.compile(r"(?:(pad_[mn])|(waves|tiles)_(\d+)x)(\d+)")
_EMPTIEST = 2.0
_CHOICES = "pad_m<tile>, pad_n<tile>, waves_<m>x<n> or tiles_<m>x<n>"


def tile_features(
    shapes: Shapes, names: tuple[str, ...], multiprocessors: int
) -> tuple[FloatArray, ...]:
    r"""Return features of matrix products, each a binary logarithm [octaves].

    For tile :math:`t_m \times t_n`, a batch of b products and S multiprocessors,

    .. math:: T = b\lceil m/t_m\rceil\lceil n/t_n\rceil,\quad
              \text{tiles} = \log_2 (T/S),\quad
              \text{waves} = \log_2 \frac{\lceil T/S\rceil}{T/S},\quad
              \text{pad} = \log_2 \frac{t\lceil x/t\rceil}{x}

    the latter two at most 2: a wave or a tile emptier than a quarter is empty.

    Parameters
    ----------
    shapes : mapping of str to ndarray
        m, n and optionally batch.
    names : tuple of str
        ``pad_m256``, ``waves_128x256``, ``tiles_128x128`` and so on for other tiles.
    multiprocessors : int
        Of the device.

    Returns
    -------
    tuple of ndarray
        One for each name.

    Raises
    ------
    CostModelError
        If a name is not a feature.

    Examples
    --------
    >>> product = {"m": np.array([256.0, 257.0]), "n": np.array(4096.0)}
    >>> padding, waves = tile_features(product, ("pad_m256", "waves_128x128"), 64)
    >>> padding.round(3).tolist(), waves.round(3).tolist()
    ([0.0, 0.994], [0.0, 0.415])
    """
    return tuple(_feature(shapes, name, multiprocessors) for name in names)


def _feature(shapes: Shapes, name: str, multiprocessors: int) -> FloatArray:
    match = _NAME.fullmatch(name)
    if match is None:
        raise CostModelError(f"feature: {name} is none of {_CHOICES}")
    padded, kind, rows, columns = match.groups()
    if padded:
        size = np.asarray(shapes[padded[-1]], dtype=np.float64)
        tile = float(columns)
        return np.asarray(np.minimum(np.log2(np.ceil(size / tile) * tile / size), _EMPTIEST))
    m, n = (np.asarray(shapes[size], dtype=np.float64) for size in ("m", "n"))
    batch = np.asarray(shapes.get("batch", 1.0), dtype=np.float64)
    waves = batch * np.ceil(m / float(rows)) * np.ceil(n / float(columns)) / multiprocessors
    if kind == "tiles":
        return np.asarray(np.log2(waves))
    return np.asarray(np.minimum(np.log2(np.ceil(waves) / waves), _EMPTIEST))
