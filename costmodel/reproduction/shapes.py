"""Language models of the papers, and their tokens layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.catalog.models_io import load_model
from costmodel.conventions import LayerRun
from costmodel.specs.model import TextSpec

__all__ = ["llm_of", "staged"]

_LLMS = {"7B": "llama-2-7b", "13B": "llama-2-13b"}


def llm_of(model: str) -> TextSpec:
    """Return the language model of a published name; Vicuna has the shape of Llama 2.

    The language model of Qwen-VL-Chat has 32 layers of width 4096 and MLPs of 11008 too
    (https://huggingface.co/Qwen/Qwen-VL-Chat/blob/main/config.json, whose
    ``intermediate_size`` is twice that of one matrix).

    Examples
    --------
    >>> llm_of("LLaVA-1.5-13B").layers, llm_of("LLaVA-1.5-7B FP16").layers
    (40, 32)
    """
    size = "13B" if "13B" in model else "7B"
    return load_model(_LLMS[size]).text


def staged(
    text: TextSpec, starts: Sequence[int], tokens: Sequence[float], others: float = 0
) -> tuple[LayerRun, ...]:
    """Return layers whose token count changes at the layers `starts`.

    Parameters
    ----------
    text : TextSpec
        Its number of layers.
    starts : sequence of int
        First layer of each stage after the first.
    tokens : sequence of float
        Visual tokens of each stage, one more than `starts`.
    others : float
        Other tokens in all layers.

    Returns
    -------
    tuple of LayerRun

    Examples
    --------
    >>> staged(llm_of("7B"), (2,), (576, 144))
    (LayerRun(layers=2, tokens=576), LayerRun(layers=30, tokens=144))
    """
    edges = (0, *starts, text.layers)
    return tuple(
        LayerRun(last - first, count + others)
        for first, last, count in zip(edges[:-1], edges[1:], tokens, strict=True)
        if last > first
    )
