"""MBTF followed by STF: the full method of the paper, between tower and language model.

Tokens, parameters, FLOPs, temporaries and launches are the sums of those of its two modules:
171,992,064 parameters for c = 1024, d = 4096, B = 8 and k = 2, and 8 launches, measured (the output
of MBTF is contiguous, so that nothing is copied in between).  No host waits, static shapes.

References
----------
.. [1] H. Tang, C. Shen, "Learning Compact Vision Tokens for Efficient Large Multimodal Models",
   arXiv:2506.07138. https://arxiv.org/abs/2506.07138
.. [2] https://github.com/visresearch/LLaVA-STF, ``llava/model/llava_arch.py`` (``encode_images``).
"""

from __future__ import annotations

from torch import nn

from .mbtf import PARAMS, MultiBlockTokenFusion, random_maps
from .method import MethodCase, Prepared, ReferenceMethod
from .modules import parameters_of, with_random_weights
from .stf import METHOD as STF
from .stf import SpatialTokenFusion, window_for

__all__ = ["METHOD"]


def _build(case: MethodCase) -> Prepared:
    maps, out_width = random_maps(case), int(case.params["out_width"])
    window = window_for(case.tokens, case.kept)
    module = with_random_weights(
        lambda: nn.Sequential(
            MultiBlockTokenFusion(case.width, len(maps)),
            SpatialTokenFusion(case.width, out_width, window),
        ),
        case,
    )
    return Prepared(
        run=lambda: module(maps),
        output_tokens=case.kept,
        parameters=parameters_of(module),
        graph_safe=True,
    )


METHOD = ReferenceMethod(
    name="mbtf+stf",
    summary="Fuses tower layers by MBTF, then neighbours by STF, in place of the projector.",
    variants=("linear",),
    build=_build,
    params={**PARAMS, **STF.params},
)
