r"""Token Merging (ToMe): each block of the vision tower joins its r most similar pairs of tokens.

Tokens at even positions (A, class token included) each find the most similar token at an odd
position (B) by the cosine of their keys, averaged over heads; the r best pairs merge:

.. math:: x_j \leftarrow \frac{\sum_{i \to j} s_i x_i}{\sum_{i \to j} s_i}, \qquad
    s_j \leftarrow \sum_{i \to j} s_i

where the sum includes j itself, and attention gains ``log s``.  Let t be the tokens of a block with
the class token, c their width and h the width of a head.

- Tokens: t become ``t - r``, r at most ``(t - 1) // 2``; the class token is never merged.
- Parameters: none.
- FLOPs of one step: ``2 ceil(t / 2) floor(t / 2) h`` per image, the similarities.
- Temporaries: t h (keys, averaged, and again normalised), ``t**2 / 4`` similarities, and for the
  merge three maps of up to t c (weighted, gathered, joined).  Attention written out adds a pass
  over its ``heads * t**2`` scores for the bias.
- Launches of one step, measured: 19 operators (mean, norm, division, product, protection of the
  class token, maximum, two sorts, five gathers, the product with sizes, two scatters, two
  concatenations and the final division), 20 in the first block, which makes the sizes.  Attention
  adds two in every later block (logarithm, bias).  A whole block written out is 21 operators
  without merging.  On a GPU a sort is several kernels and a scatter a copy and a kernel.
- Host waits: none; r is fixed, so shapes are static and a CUDA graph can capture the step.
- The bias keeps attention from kernels that take none; fused attention with a mask works.

`tome_merge` follows the released code: what is merged is decided by sorting each even token's
best similarity, tokens that stay are sorted by position, and the tokens of B follow them.  The code
removes a constant r per block; `even_schedule` is as constant as a wanted total allows.

Variants: ``step`` times one matching and merge; ``tower`` a whole CLIP tower of random weights,
with `fused` attention or not, whose blocks merge so that `kept` patches remain.  Both count patches
and drop the class token at the end, which is a view.  The default of 23 layers is what LLaVA-1.5
reads of CLIP's 24.

References
----------
.. [1] D. Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv:2210.09461,
   section 3. https://arxiv.org/abs/2210.09461
.. [2] https://github.com/facebookresearch/ToMe, ``tome/merge.py`` and ``tome/patch/timm.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .method import MethodCase, Prepared, ReferenceMethod
from .modules import random_values
from .stf import side_of
from .tome_merge import most_removable, reduce_tokens
from .vit import PATCH, Reduce, clip_tower, embed, encode

__all__ = ["METHOD", "even_schedule", "schedule_steps"]


def even_schedule(tokens: int, kept: int, layers: int) -> tuple[int, ...]:
    """Spread the tokens to remove evenly over layers, the earlier ones taking the remainder.

    Parameters
    ----------
    tokens, kept : int
        Patches before and after, without the class token.
    layers : int
        Blocks that merge.

    Raises
    ------
    ValueError
        If some block would have to merge more than half of its tokens.

    Examples
    --------
    >>> even_schedule(576, 192, 23)[:3], sum(even_schedule(576, 192, 23))
    ((17, 17, 17), 384)
    """
    share, more = divmod(tokens - kept, layers)
    removed = tuple(share + (index < more) for index in range(layers))
    left = tokens + 1
    for index, one in enumerate(removed):
        if one > most_removable(left):
            raise ValueError(
                f"kept: {kept} of {tokens} tokens would merge {one} of {left} in block {index},"
                f" at most {most_removable(left)} can"
            )
        left -= one
    return removed


def schedule_steps(removed: Sequence[int]) -> list[Reduce | None]:
    """Return what each block of `vit.encode` does, for the tokens each removes."""
    return [partial(reduce_tokens, removed=one) if one else None for one in removed]


def _step(case: MethodCase) -> Prepared:
    heads = int(case.params["heads"])
    if case.width % heads:
        raise ValueError(f"heads: {heads} do not divide the width {case.width}")
    removed = case.tokens - case.kept
    if removed > most_removable(case.tokens + 1):
        raise ValueError(
            f"kept: one step keeps at least {case.tokens - most_removable(case.tokens + 1)}"
            f" of {case.tokens} tokens, not {case.kept}"
        )
    count = case.tokens + 1
    tokens = random_values(case, count, case.width)
    keys = random_values(case, heads, count, case.width // heads, stream=1)
    sizes = torch.ones_like(tokens[..., :1])
    return Prepared(
        run=lambda: reduce_tokens(tokens, keys, sizes, removed)[0][:, 1:],
        output_tokens=case.kept,
        graph_safe=True,
    )


def _tower(case: MethodCase) -> Prepared:
    layers, side = int(case.params["layers"]), side_of(case.tokens)
    steps = schedule_steps(even_schedule(case.tokens, case.kept, layers))
    fused = bool(case.params["fused"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        tower = clip_tower(
            side=side,
            width=case.width,
            layers=layers,
            heads=int(case.params["heads"]),
            mlp_width=int(case.params["mlp_width"]) or 4 * case.width,
        ).to(device=case.device, dtype=case.torch_dtype)
    pixels = random_values(case, 3, side * PATCH, side * PATCH)

    def run() -> Tensor:
        with torch.no_grad():
            encoded = encode(tower.encoder.layers, embed(tower, pixels), steps, fused=fused)
        return encoded.tokens[:, 1:]

    return Prepared(run=run, output_tokens=case.kept, graph_safe=True)


def _build(case: MethodCase) -> Prepared:
    return _step(case) if case.variant == "step" else _tower(case)


METHOD = ReferenceMethod(
    name="tome",
    summary="Merges the most similar tokens between attention and MLP of each tower block.",
    variants=("step", "tower"),
    build=_build,
    params={"heads": 16, "layers": 23, "mlp_width": 0, "fused": False},
)
