"""Convention A: MACs with three MLP matrices, called FLOPs by many papers."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.conventions.convention import Convention, LayerRun
from costmodel.specs.model import TextSpec

__all__ = ["CONVENTION", "layer_macs"]


def layer_macs(tokens: float, hidden: int, intermediate: int) -> float:
    r"""MACs of one decoder layer with a gated MLP [MAC].

    .. math:: M = 4 n d^2 + 2 n^2 d + 3 n d m

    Parameters
    ----------
    tokens, hidden, intermediate : int
        n, d and m.

    Returns
    -------
    float

    References
    ----------
    .. [1] L. Xing et al., "PyramidDrop: Accelerating Your Large Vision-Language Models via
           Pyramid Visual Redundancy Reduction", CVPR 2025, section 3.3, arXiv:2410.17247.

    Examples
    --------
    >>> f"{32 * layer_macs(576, 4096, 11008) / 1e12:.2f} T"
    '3.82 T'
    """
    return 4 * tokens * hidden**2 + 2 * tokens**2 * hidden + 3 * tokens * hidden * intermediate


class Mac3Mlp(Convention):
    """Half the FLOPs of a multi-head language model, without its head."""

    name = "mac-3mlp"
    title = "A: MACs, three MLP matrices"
    counts = "MAC"
    equation = "L (4nd^2 + 2n^2d + 3ndm)"
    used_by = "PyramidDrop, SparseVLM, VScan"
    source = "PyramidDrop (CVPR 2025), section 3.3"
    url = "https://arxiv.org/abs/2410.17247"

    def flops(self, text: TextSpec, runs: Sequence[LayerRun], batch: int = 1) -> float:
        """Return the MACs of all layers."""
        d, m = text.hidden_size, text.intermediate_size
        return batch * sum(run.layers * layer_macs(run.tokens, d, m) for run in runs)


CONVENTION = Mac3Mlp()
