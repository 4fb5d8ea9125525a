"""Rules E to G of published work: attention alone, KV cache, equivalent tokens."""

from __future__ import annotations

from collections.abc import Iterable

from costmodel.conventions.convention import LayerRun
from costmodel.specs.model import TextSpec

__all__ = [
    "attention_score_macs",
    "equivalent_tokens",
    "kv_cache_bytes",
    "unmerged_attention_macs",
]


def attention_score_macs(text: TextSpec, tokens: float) -> float:
    r"""Rule E: MACs of the scores of one layer's attention [MAC].

    .. math:: M = h a\,N^2

    One of the two products of attention, as DyMU's table of attention FLOPs counts full
    attention.

    Parameters
    ----------
    text : TextSpec
        h heads of size a.
    tokens : float
        N.

    Returns
    -------
    float

    References
    ----------
    .. [1] Z. Wang et al., "DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs",
           NeurIPS 2025, table 1, arXiv:2504.17040.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> f"{attention_score_macs(load_model('llama-2-7b').text, 576) / 1e6:.1f} M"
    '1359.0 M'
    """
    return text.heads * text.head_dim * tokens**2


def unmerged_attention_macs(text: TextSpec, unique_tokens: float) -> float:
    r"""Rule E: MACs of the scores of virtual unmerging, elementwise expansion left out [MAC].

    .. math:: M = 2 h a\,N_{un}^2

    Two products of the unique tokens stand for the sine and the cosine part of the rotated
    scores.

    Parameters
    ----------
    text : TextSpec
        h heads of size a.
    unique_tokens : float
        N_un, tokens after merging.

    Returns
    -------
    float

    References
    ----------
    .. [1] DyMU, as in `attention_score_macs`.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> f"{unmerged_attention_macs(load_model('llama-2-7b').text, 89) / 1e6:.1f} M"
    '64.9 M'
    """
    return 2 * attention_score_macs(text, unique_tokens)


def kv_cache_bytes(
    text: TextSpec, runs: Iterable[LayerRun], kv_bytes: float = 2.0, batch: int = 1
) -> float:
    r"""Rule F: bytes of the keys and values of a prompt [B].

    .. math:: Q = 2 g a\,\beta \sum_l n_l

    Parameters
    ----------
    text : TextSpec
        g key-value heads of size a.
    runs : iterable of LayerRun
        Tokens cached in each layer.
    kv_bytes : float
        Bytes of one element.
    batch : int
        Requests.

    Returns
    -------
    float

    References
    ----------
    .. [1] Y. Zhang et al., "SparseVLM", ICML 2025, section 5.3, arXiv:2410.04417.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> f"{kv_cache_bytes(load_model('llama-2-7b').text, [LayerRun(32, 576)]) / 1e6:.1f} MB"
    '302.0 MB'
    """
    cached = sum(run.layers * run.tokens for run in runs)
    return 2 * text.kv_heads * text.head_dim * kv_bytes * batch * cached


def equivalent_tokens(runs: Iterable[LayerRun]) -> float:
    r"""Rule G: the mean over the layers of the tokens they work on.

    .. math:: \bar n = \sum_l n_l / L

    Parameters
    ----------
    runs : iterable of LayerRun
        Tokens of each layer.

    Returns
    -------
    float

    References
    ----------
    .. [1] https://github.com/Gumpest/SparseVLMs/issues/12

    Examples
    --------
    FastV with K = 2 and R = 75 % on 576 tokens:

    >>> equivalent_tokens([LayerRun(2, 576), LayerRun(30, 144)])
    171.0
    """
    found = list(runs)
    return sum(run.layers * run.tokens for run in found) / sum(run.layers for run in found)
