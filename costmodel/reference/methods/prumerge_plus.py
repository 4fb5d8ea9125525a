r"""PruMerge+: PruMerge, with patches on an even grid beside the outliers.

With the share r of outliers, every ``int(int(1 / r) / 3)``-th patch stays too, unless it is an
outlier already; then each token that stays is joined by its neighbours as in PruMerge.

- Tokens: outliers, grid patches among the others, and one more; about a quarter of n on average.
- FLOPs, temporaries and the merge: as PruMerge, with the larger k.
- Launches, measured: as released ``25 + 11 k + 3 g + (k - o)`` operators for o outliers and g
  patches on the grid, 31 in ``fused``.
- Host waits: as released ``2 + g + (k - o)`` (the attention, one per patch on the grid, whose
  membership Python asks for, one per patch added, whose index it reads, and the copy of these to
  the device), in ``fused`` 2.
- Data dependent: always, so no CUDA graph, and one image at a time, as released.

Follows the released code at inference, which with a third or more of outliers, or with none,
fails; here that is a ValueError.

References
----------
.. [1] Y. Shang et al., arXiv:2403.15388, section 3. https://arxiv.org/abs/2403.15388
.. [2] https://github.com/42Shawn/LLaVA-PruMerge,
   ``llava/model/multimodal_encoder/clip_encoder.py`` (``token_prune_merge_advanced_plus``).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .method import MethodCase, Prepared, ReferenceMethod
from .prumerge import (
    NEIGHBOURS,
    class_attention,
    class_attention_row,
    merge_at_once,
    merge_by_loop,
    outlier_ratio,
    outlier_ratio_on_device,
)
from .prumerge_inputs import LayerOutputs, most_outliers, planted_outputs

__all__ = ["METHOD", "grid_step", "prune_and_merge_plus", "prune_and_merge_plus_fused"]


def grid_step(ratio: float) -> int:
    """Distance of the patches that stay besides outliers.

    Raises
    ------
    ValueError
        If there are no outliers, or more than a third.

    Examples
    --------
    >>> grid_step(32 / 576)
    6
    """
    step = int(int(1 / ratio) / 3) if ratio else 0
    if not step:
        raise ValueError(f"ratio: {ratio} of outliers gives no grid, only up to 1/3 and above 0")
    return step


def prune_and_merge_plus(outputs: LayerOutputs) -> Tensor:
    """Compress the tokens of one image, step by step as released; shape (1, k + 1, c)."""
    attention = class_attention(outputs.queries, outputs.keys)
    count, ratio = attention.shape[1], outlier_ratio(attention)
    chosen = attention.topk(int(count * ratio), dim=1).indices
    grid = torch.arange(0, count - 1, grid_step(ratio), device=chosen.device)
    outliers = chosen.flatten()
    added = [int(patch) for patch in grid if patch not in outliers]
    extra = torch.tensor(added, dtype=torch.long, device=chosen.device)
    chosen = torch.cat([chosen, extra[None]], dim=1)
    return merge_by_loop(outputs.features, outputs.keys[:, 1:], attention, chosen)


def prune_and_merge_plus_fused(outputs: LayerOutputs) -> Tensor:
    """Return the same as `prune_and_merge_plus` up to rounding, without loops."""
    attention = class_attention_row(outputs.queries, outputs.keys)
    count, ratio = attention.shape[1], outlier_ratio_on_device(attention)
    chosen = attention.topk(int(count * ratio), dim=1).indices
    grid = torch.arange(0, count - 1, grid_step(ratio), device=chosen.device)
    # Not told so, isin would look for the unique ones of both, and the host wait for their number.
    outliers = torch.isin(grid, chosen, assume_unique=True)
    chosen = torch.cat([chosen, grid[~outliers][None]], dim=1)
    return merge_at_once(outputs.features, outputs.keys[:, 1:], attention, chosen)


def _outliers(case: MethodCase) -> NDArray[np.int64]:
    """Patches to plant so that outliers and grid together leave ``case.kept`` tokens."""
    best: tuple[float, int, int, int] | None = None
    for count in range(1, most_outliers(case.tokens) + 1):
        if int(case.tokens * (count / case.tokens)) != count:
            continue
        step = grid_step(count / case.tokens)
        on_grid = len(range(0, case.tokens - 1, step))
        shared = count + on_grid + 1 - case.kept
        free = case.tokens - on_grid
        if 0 <= shared <= min(count, on_grid) and count - shared <= free:
            surprise = abs(shared - count * on_grid / case.tokens)
            best = min(best or (np.inf, 0, 0, 0), (surprise, count, step, shared))
    if best is None:
        raise ValueError(f"kept: no number of outliers leaves {case.kept} of {case.tokens} tokens")
    _, count, step, shared = best
    random = np.random.default_rng(case.seed)
    grid = np.arange(0, case.tokens - 1, step)
    others = np.setdiff1d(np.arange(case.tokens), grid)
    chosen = [
        random.choice(places, number, replace=False)
        for places, number in ((grid, shared), (others, count - shared))
    ]
    return np.concatenate(chosen)


def _build(case: MethodCase) -> Prepared:
    if case.batch != 1:
        raise ValueError(f"batch: prumerge+ takes one image at a time, not {case.batch}")
    if case.tokens <= NEIGHBOURS:
        raise ValueError(f"tokens: {case.tokens} are not more than the {NEIGHBOURS} neighbours")
    outputs = planted_outputs(case, _outliers(case))
    run = prune_and_merge_plus_fused if case.variant == "fused" else prune_and_merge_plus
    return Prepared(lambda: run(outputs), output_tokens=None)


METHOD = ReferenceMethod(
    name="prumerge+",
    summary="PruMerge with patches on an even grid beside the outliers.",
    variants=("released", "fused"),
    build=_build,
)
