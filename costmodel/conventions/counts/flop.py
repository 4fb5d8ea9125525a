"""FlopCounterMode: two FLOP per MAC, matrix products only, full attention, head on one token."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.conventions.convention import Convention, LayerRun
from costmodel.specs.model import TextSpec

__all__ = ["CONVENTION", "head_flops", "layer_flops"]


def layer_flops(text: TextSpec, tokens: float) -> float:
    r"""FLOPs of one decoder layer on `tokens` tokens [FLOP].

    .. math:: F = 2n\,(2 d h a + 2 d g a + c\,d m) + 4 n^2 h a

    with h query heads, g key-value heads, a the head size and c = 3 matrices of a gated MLP
    (2 of a plain one).

    Parameters
    ----------
    text : TextSpec
        Shape of the language model.
    tokens : float
        Tokens in the layer, n.

    Returns
    -------
    float

    References
    ----------
    .. [1] `torch.utils.flop_counter
           <https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py>`_.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> int(32 * layer_flops(load_model("llama-2-7b").text, 640))
    8504035246080
    """
    d, heads = text.hidden_size, text.heads * text.head_dim
    matrices = 3 if text.gated_mlp else 2
    weights = 2 * d * heads + 2 * d * text.kv_heads * text.head_dim
    weights += matrices * d * text.intermediate_size
    return 2 * tokens * weights + 4 * tokens**2 * heads


def head_flops(text: TextSpec) -> float:
    """FLOPs of the head on one token, 2 d V [FLOP]."""
    return 2 * text.hidden_size * text.vocab_size


class FlopCounter(Convention):
    """The count of this project."""

    name = "flop"
    title = "FlopCounterMode: the default of this project"
    counts = "FLOP"
    equation = "sum over layers of 2n(2dha + 2dga + 3dm) + 4n^2ha, and 2dV for the head"
    used_by = "this project; torch.utils.flop_counter"
    source = "PyTorch, torch.utils.flop_counter"
    url = "https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py"
    by_operators = True

    def flops(self, text: TextSpec, runs: Sequence[LayerRun], batch: int = 1) -> float:
        """Return FLOPs of the layers and of the head on the last token."""
        layers = sum(run.layers * layer_flops(text, run.tokens) for run in runs)
        return batch * (layers + head_flops(text))


CONVENTION = FlopCounter()
