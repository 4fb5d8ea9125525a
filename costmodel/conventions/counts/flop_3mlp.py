"""Convention C: FLOPs with three MLP matrices, twice convention A."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.conventions.convention import Convention, LayerRun
from costmodel.specs.model import TextSpec

__all__ = ["CONVENTION", "layer_flops"]


def layer_flops(tokens: float, hidden: int, intermediate: int) -> float:
    r"""FLOPs of one multi-head decoder layer with a gated MLP [FLOP].

    .. math:: F = 2n\,(4 d + 3 m)\,d + 4 n^2 d

    Parameters
    ----------
    tokens, hidden, intermediate : int
        n, d and m.

    Returns
    -------
    float

    References
    ----------
    .. [1] Q. Yuan et al., "ShortV: Efficient Multimodal Large Language Models by Freezing Visual
           Tokens in Ineffective Layers", ICCV 2025, arXiv:2504.00502.

    Examples
    --------
    >>> f"{32 * layer_flops(640, 4096, 11008) / 1e12:.2f} T"
    '8.50 T'
    >>> f"{40 * layer_flops(640, 5120, 13824) / 1e12:.2f} T"
    '16.58 T'
    """
    d, m = hidden, intermediate
    return 2 * tokens * (4 * d + 3 * m) * d + 4 * tokens**2 * d


class Flop3Mlp(Convention):
    """The true FLOPs of the layers of a multi-head model, without the head."""

    name = "flop-3mlp"
    title = "C: FLOPs, three MLP matrices"
    counts = "FLOP"
    equation = "2 L (4nd^2 + 2n^2d + 3ndm)"
    used_by = "STF, ShortV"
    source = "ShortV (ICCV 2025)"
    url = "https://arxiv.org/abs/2504.00502"

    def flops(self, text: TextSpec, runs: Sequence[LayerRun], batch: int = 1) -> float:
        """Return the FLOPs of all layers."""
        d, m = text.hidden_size, text.intermediate_size
        return batch * sum(run.layers * layer_flops(run.tokens, d, m) for run in runs)


CONVENTION = Flop3Mlp()
