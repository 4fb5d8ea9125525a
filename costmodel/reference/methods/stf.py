r"""Spatial Token Fusion (STF): windows of k x k tokens become one, in place of the projector.

.. math:: y = W_2\, \mathrm{GELU}(W_1\, [x_{i,j}]_{k \times k} + b_1) + b_2

with :math:`W_1` from :math:`k^2 c` to :math:`16 c` and :math:`W_2` from :math:`16 c` to the width
d of the language model.

- Tokens: n on a square grid become ``(isqrt(n) // k)**2``; edges that fill no window are dropped.
- Parameters: ``16 c (k**2 c + 1) + d (16 c + 1)``; 134,238,208 for c = 1024, d = 4096, k = 2.
- FLOPs, for m tokens that remain: ``2 m (k**2 c * 16 c + 16 c * d)`` per image.
- Temporaries: the unfolded tokens (n c elements, read and written once) and two hidden maps
  (``16 c m`` elements each, before and after GELU).
- Launches, measured: 4 (copy, linear, GELU, linear), whatever the batch; with k = 1 unfolding is
  a view and leaves 3.  Variant ``conv``: 3 operators (convolution, GELU, convolution), to which a
  GPU's library may add copies that change the layout.
- Host waits: none.  Shapes depend on nothing but the input's: a CUDA graph can capture it.

The module follows the released code: neighbours are joined channel by channel, the hidden width is
16 times the tower's whatever the window, and no activation follows the second layer.  The paper
draws a k x k convolution of stride k and a 1 x 1 convolution, which is the same map with the same
weights (variant ``conv``).

References
----------
.. [1] H. Tang, C. Shen, "Learning Compact Vision Tokens for Efficient Large Multimodal Models",
   arXiv:2506.07138, section 3. https://arxiv.org/abs/2506.07138
.. [2] https://github.com/visresearch/LLaVA-STF, ``llava/model/llava_arch.py``
   (``split_image_features``) and ``llava/model/multimodal_projector/builder.py``.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from .method import MethodCase, Prepared, ReferenceMethod, random_tokens
from .modules import parameters_of, two_linears, with_random_weights

__all__ = ["METHOD", "SpatialTokenFusion", "side_of", "unfold", "window_for"]

HIDDEN_FACTOR = 16
"""Hidden width over the tower's width, fixed in the released code."""


def side_of(tokens: int) -> int:
    """Return the side of a square grid of tokens.

    Raises
    ------
    ValueError
        If the number is no square.

    Examples
    --------
    >>> side_of(576)
    24
    """
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"tokens: {tokens} is no square grid, as fusion of neighbours needs")
    return side


def window_for(tokens: int, kept: int) -> int:
    """Return the smallest window that leaves `kept` of `tokens`.

    Raises
    ------
    ValueError
        If no window does.

    Examples
    --------
    >>> window_for(576, 144)
    2
    """
    side = side_of(tokens)
    counts = {(side // window) ** 2: window for window in range(side, 0, -1)}
    if kept not in counts:
        known = ", ".join(str(count) for count in sorted(counts))
        raise ValueError(f"kept: no window leaves {kept} of {tokens} tokens, only {known}")
    return counts[kept]


def unfold(tokens: Tensor, window: int) -> Tensor:
    """Join windows of neighbours along channels, channel first and position within it second.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, tokens, c), a square grid row by row.
    window : int
        Side of a window (k).

    Returns
    -------
    Tensor
        Shape (images, windows, c * k**2); one copy.
    """
    images, count, width = tokens.shape
    side = side_of(count)
    grid = tokens.view(images, side, side, width)
    windows = grid.unfold(1, window, window).unfold(2, window, window)
    return windows.reshape(images, (side // window) ** 2, width * window**2)


class SpatialTokenFusion(nn.Module):  # type: ignore[misc]
    """Unfold, then two linear layers.

    Parameters
    ----------
    width : int
        Width of a token of the tower (c).
    out_width : int
        Width of the language model (d).
    window : int
        Side of the window (k).
    """

    def __init__(self, width: int, out_width: int, window: int = 2) -> None:
        super().__init__()
        self.window = window
        self.layers = two_linears(window**2 * width, HIDDEN_FACTOR * width, out_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Fuse tokens (images, n, c) into (images, n / k**2, d)."""
        fused: Tensor = self.layers(unfold(tokens, self.window))
        return fused

    def convolve(self, tokens: Tensor) -> Tensor:
        """Do the same as the paper draws it: a strided convolution and one of 1 x 1."""
        images, count, width = tokens.shape
        side, first, second = side_of(count), self.layers[0], self.layers[2]
        pixels = tokens.view(images, side, side, width).permute(0, 3, 1, 2)
        kernel = first.weight.view(-1, width, self.window, self.window)
        hidden = functional.conv2d(pixels, kernel, first.bias, stride=self.window)
        hidden = functional.gelu(hidden)
        fused = functional.conv2d(hidden, second.weight[:, :, None, None], second.bias)
        return fused.flatten(2).transpose(1, 2)


def _build(case: MethodCase) -> Prepared:
    window = window_for(case.tokens, case.kept)
    out_width = int(case.params["out_width"])
    module = with_random_weights(lambda: SpatialTokenFusion(case.width, out_width, window), case)
    tokens = random_tokens(case)
    forward = module.convolve if case.variant == "conv" else module
    return Prepared(
        run=lambda: forward(tokens),
        output_tokens=case.kept,
        parameters=parameters_of(module),
        graph_safe=True,
    )


METHOD = ReferenceMethod(
    name="stf",
    summary="Fuses k x k neighbours with two linear layers that replace the projector.",
    variants=("linear", "conv"),
    build=_build,
    params={"out_width": 4096},
)
