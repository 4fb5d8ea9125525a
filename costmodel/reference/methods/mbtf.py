r"""Multi-Block Token Fusion (MBTF): tokens of several tower layers become one set.

.. math:: y = W_2\, \mathrm{GELU}(W_1\, [x^{(1)}, \ldots, x^{(B)}] + b_1) + b_2

with :math:`W_1` from :math:`B c` to :math:`4 c` and :math:`W_2` back to the tower's width c.

- Tokens: n remain n; the class token of each map is dropped.
- Parameters: ``4 c (B c + 1) + c (4 c + 1)``; 37,753,856 for c = 1024 and B = 8.
- FLOPs: ``2 n (B c * 4 c + 4 c * c)`` per image.
- Temporaries: the joined maps (``B n c`` elements, read and written once) and two hidden maps
  (``4 c n`` elements each).  The tower must keep its B tapped layers until then.
- Launches, measured: 4 (concatenation, linear, GELU, linear).  Slicing the class token off is a
  view.  The released code casts each map to the format of the images; where that is the tower's
  own format the cast does nothing, otherwise it adds B launches (parameter ``tower_dtype``).
- Host waits: none.  Shapes depend on nothing but the input's: a CUDA graph can capture it.

The module follows the released code: the maps are hidden states {-2, 21, 18, 15, 12, 9, 6, 3} of a
tower of 24 layers (the paper says 24 where the code has -2, the output of layer 23), and no
activation follows the second layer, although the paper's figure draws one.

References
----------
.. [1] H. Tang, C. Shen, "Learning Compact Vision Tokens for Efficient Large Multimodal Models",
   arXiv:2506.07138, section 3. https://arxiv.org/abs/2506.07138
.. [2] https://github.com/visresearch/LLaVA-STF, ``llava/model/multimodal_encoder/clip_encoder.py``
   (``feature_select``) and ``llava/model/multimodal_projector/builder.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from .method import DTYPES, MethodCase, Prepared, ReferenceMethod
from .modules import parameters_of, random_values, two_linears, with_random_weights

__all__ = ["METHOD", "PARAMS", "MultiBlockTokenFusion", "join_maps", "random_maps"]

HIDDEN_FACTOR = 4
"""Hidden width over the tower's width, fixed in the released code."""

PARAMS = {"blocks": 8, "tower_dtype": ""}
"""Tapped layers, and the tower's number format where it differs from that of the images."""


def join_maps(maps: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Drop the class token of each map, cast, and join the maps along channels.

    Parameters
    ----------
    maps : sequence of Tensor
        Hidden states of the tapped layers, each of shape (images, 1 + n, c), class token first.
    dtype : torch.dtype
        Format of the result.

    Returns
    -------
    Tensor
        Shape (images, n, maps * c).
    """
    return torch.cat([one[:, 1:].to(dtype) for one in maps], dim=-1)


class MultiBlockTokenFusion(nn.Module):  # type: ignore[misc]
    """Two linear layers over joined maps.

    Parameters
    ----------
    width : int
        Width of a token of the tower (c).
    blocks : int
        Tapped layers (B).
    """

    def __init__(self, width: int, blocks: int = 8) -> None:
        super().__init__()
        self.layers = two_linears(blocks * width, HIDDEN_FACTOR * width, width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse maps of shape (images, 1 + n, c) into (images, n, c)."""
        fused: Tensor = self.layers(join_maps(maps, self.layers[0].weight.dtype))
        return fused


def random_maps(case: MethodCase) -> list[Tensor]:
    """Return standard normal hidden states with a class token, one map per tapped layer.

    Raises
    ------
    ValueError
        If parameter ``blocks`` or ``tower_dtype`` makes no sense.
    """
    blocks, dtype = int(case.params["blocks"]), case.params["tower_dtype"] or case.dtype
    if blocks < 1:
        raise ValueError(f"blocks: {blocks} is not at least 1")
    if dtype not in DTYPES:
        raise ValueError(f"tower_dtype: {dtype!r} is none of {', '.join(DTYPES)}")
    tower = replace(case, dtype=dtype)
    return [random_values(tower, 1 + case.tokens, case.width, stream=i) for i in range(blocks)]


def _build(case: MethodCase) -> Prepared:
    if case.kept != case.tokens:
        raise ValueError(f"kept: mbtf keeps all {case.tokens} tokens, not {case.kept}")
    maps = random_maps(case)
    module = with_random_weights(lambda: MultiBlockTokenFusion(case.width, len(maps)), case)
    return Prepared(
        run=lambda: module(maps),
        output_tokens=case.tokens,
        parameters=parameters_of(module),
        graph_safe=True,
    )


METHOD = ReferenceMethod(
    name="mbtf",
    summary="Fuses the tokens of several tower layers with two linear layers; no token is dropped.",
    variants=("linear",),
    build=_build,
    params=PARAMS,
)
