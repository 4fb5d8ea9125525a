"""Convention B: MACs with two MLP matrices, a plain MLP where the model has a gated one."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.conventions.convention import Convention, LayerRun
from costmodel.specs.model import TextSpec

__all__ = ["CONVENTION", "layer_macs"]


def layer_macs(tokens: float, hidden: int, intermediate: int) -> float:
    r"""MACs of one decoder layer, the MLP counted as two matrices [MAC].

    .. math:: M = 4 n d^2 + 2 n^2 d + 2 n d m

    Parameters
    ----------
    tokens, hidden, intermediate : int
        n, d and m.

    Returns
    -------
    float

    References
    ----------
    .. [1] L. Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024, section 4.2,
           arXiv:2403.06764.

    Examples
    --------
    >>> f"{layer_macs(612, 4096, 11008) / 1e9:.1f} G, {layer_macs(612, 5120, 13824) / 1e9:.1f} G"
    '99.3 G, 154.6 G'
    """
    return 4 * tokens * hidden**2 + 2 * tokens**2 * hidden + 2 * tokens * hidden * intermediate


class Mac2Mlp(Convention):
    """A third of a gated MLP is left out, and a MAC counts as one."""

    name = "mac-2mlp"
    title = "B: MACs, two MLP matrices"
    counts = "MAC"
    equation = "L (4nd^2 + 2n^2d + 2ndm)"
    used_by = "FastV (mean of the layers), VisionZip, DivPrune"
    source = "FastV (ECCV 2024), section 4.2"
    url = "https://arxiv.org/abs/2403.06764"

    def flops(self, text: TextSpec, runs: Sequence[LayerRun], batch: int = 1) -> float:
        """Return the MACs of all layers."""
        d, m = text.hidden_size, text.intermediate_size
        return batch * sum(run.layers * layer_macs(run.tokens, d, m) for run in runs)


CONVENTION = Mac2Mlp()
