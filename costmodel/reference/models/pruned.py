"""FastV and PyramidDrop: visual tokens dropped between decoder layers by attention.

Both are written for the fused decoder after their public code:
https://github.com/pkunlp-icler/FastV (``fastv_kvcache.py``, commit 49dfad7) and
https://github.com/Cooperx521/PyramidDrop (``modeling_llama_pdrop.py``, commit 3f89f94).
The last token of the prompt asks; its attention to the visual tokens, averaged over the heads,
ranks them; those kept stay in order.

A compiler removes what ``released`` computes twice: time those variants uncompiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .attention import attend, attention_weights, repeat_heads
from .decoder import Decoder, DecoderLayer, KVCache, Rotary, write_cache

__all__ = ["FastV", "PyramidDrop"]


@dataclass(frozen=True)
class FastV:
    """Keep `kept` visual tokens from layer `layer` on, ranked by the layer before [1].

    Tokens keep the positions they had in the prompt.

    Attributes
    ----------
    layer : int
        First layer that runs on fewer tokens (K, from 1); layer K - 1 ranks them.
    kept : int
        Visual tokens kept.
    variant : {"paper", "released", "last-row"}
        ``paper``: layer K - 1 runs once, with its weights in memory.  ``released``: it runs
        twice, first with its weights in memory, and that output is thrown away.  (The released
        code also appends the layer's keys and values to the cache twice; here they are written
        to the same place.)  ``last-row``: it runs once with the model's attention, and one row
        of weights is computed beside it; not in the public code, and the least that can be done.

    References
    ----------
    .. [1] L. Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024,
           arXiv:2403.06764.
    """

    layer: int
    kept: int
    variant: Literal["paper", "released", "last-row"] = "paper"

    graph_safe = True

    def __post_init__(self) -> None:
        _known("variant", self.variant, ("paper", "released", "last-row"))
        if self.layer < 1 or self.kept < 1:
            raise ValueError(f"FastV: layer {self.layer} and kept {self.kept} must be at least 1")

    def tokens_by_layer(self, layers: int, text: int, visual: int) -> tuple[int, ...]:
        """Return the tokens of each layer, of its hidden state and its KV cache alike."""
        _in_reach((self.layer,), (self.kept,), layers, visual)
        return tuple(text + (visual if i < self.layer else self.kept) for i in range(layers))

    def run(
        self, decoder: Decoder, hidden: Tensor, cache: KVCache, start: int, visual: int
    ) -> Tensor:
        """Run all layers on a prompt whose visual tokens are `visual` columns from `start` on.

        Parameters
        ----------
        decoder : Decoder
            Whose layers run.
        hidden : Tensor
            Embeddings (batch, tokens, width).
        cache : KVCache
            Filled; layers from `layer` on hold fewer tokens.
        start, visual : int
            Where the visual tokens are.

        Returns
        -------
        Tensor
            Hidden state before the final norm, (batch, tokens kept, width).

        Raises
        ------
        ValueError
            If there are not that many layers or visual tokens.
        """
        tokens = hidden.shape[1]
        lengths = self.tokens_by_layer(len(decoder.layers), tokens - visual, visual)
        rotary = decoder.rotary(torch.arange(tokens, device=hidden.device))
        for index, layer in enumerate(decoder.layers):
            if index != self.layer - 1:
                hidden = layer.prefill(hidden, rotary, cache.layer(index), decoder.attention)
                continue
            hidden, scores = self._rank(decoder, index, hidden, rotary, cache)
            ranked = scores[:, start : start + visual]
            columns = _columns(ranked, self.kept, start, tokens)
            hidden = _take(hidden, columns)
            cosines, sines = decoder.rotary(columns)
            rotary = cosines[:, None], sines[:, None]
        cache.filled(lengths, [tokens] * len(lengths))
        return hidden

    def _rank(
        self, decoder: Decoder, index: int, hidden: Tensor, rotary: Rotary, cache: KVCache
    ) -> tuple[Tensor, Tensor]:
        """Return the output of a layer and the attention (batch, tokens) of the last token."""
        layer, pair = decoder.layers[index], cache.layer(index)
        query, keys, values = layer.project(hidden, rotary)
        write_cache(pair, keys, values)
        if self.variant == "last-row":
            attended = attend(query, keys, values, causal=True, kind=decoder.attention)
            weights = attention_weights(query[:, :, -1:], keys, causal=False)
        else:
            weights = attention_weights(query, keys, causal=True)
            attended = weights @ repeat_heads(values, query.shape[1])
        output = layer.finish(hidden, attended)
        scores = weights.mean(dim=1)[:, -1]
        if self.variant == "released":
            output = layer.prefill(hidden, rotary, pair, decoder.attention)
        return output, scores


@dataclass(frozen=True)
class PyramidDrop:
    """Drop visual tokens before several layers, down to `kept` of them in turn [1].

    Before each of these layers its norm and its queries and keys are computed for the ranking
    alone, and again when the layer runs.  The tokens that stay are numbered anew.

    Attributes
    ----------
    layers : tuple of int
        Layers before which tokens are dropped, ascending; (8, 16, 24) in the paper's 32.
    kept : tuple of int
        Visual tokens from each of them on; (288, 144, 72) of 576 in the paper.
    variant : {"released", "lean"}
        ``released``: queries, keys and values of all tokens, a mask of tokens x tokens, and a
        loop over the batch that waits for the device several times.  ``lean``: keys of all
        tokens and one query, no mask, the batch at once, no waiting; not in the public code.

    References
    ----------
    .. [1] L. Xing et al., "PyramidDrop: Accelerating Your Large Vision-Language Models via
           Pyramid Visual Redundancy Reduction", CVPR 2025, arXiv:2410.17247.
    """

    layers: tuple[int, ...]
    kept: tuple[int, ...]
    variant: Literal["released", "lean"] = "released"

    def __post_init__(self) -> None:
        _known("variant", self.variant, ("released", "lean"))
        if len(self.layers) != len(self.kept) or not self.layers:
            raise ValueError(f"PyramidDrop: layers {self.layers} and kept {self.kept} do not pair")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 1:
            raise ValueError(f"PyramidDrop: layers {self.layers} must ascend from at least 1")
        if list(self.kept) != sorted(self.kept, reverse=True) or self.kept[-1] < 1:
            raise ValueError(f"PyramidDrop: kept {self.kept} must descend to at least 1")

    @classmethod
    def of_paper(
        cls, layers: int, visual: int, variant: Literal["released", "lean"] = "released"
    ) -> PyramidDrop:
        """Return the paper's schedule: half the tokens dropped at each quarter of the depth.

        Examples
        --------
        >>> PyramidDrop.of_paper(32, 576)
        PyramidDrop(layers=(8, 16, 24), kept=(288, 144, 72), variant='released')
        """
        quarters = tuple(layers * part // 4 for part in (1, 2, 3))
        return cls(quarters, (visual // 2, visual // 4, visual // 8), variant)

    @property
    def graph_safe(self) -> bool:
        """Whether it never waits for the device."""
        return self.variant == "lean"

    def tokens_by_layer(self, layers: int, text: int, visual: int) -> tuple[int, ...]:
        """Return the tokens of each layer, of its hidden state and its KV cache alike."""
        _in_reach(self.layers, self.kept, layers, visual)
        counts, left = [], visual
        for index in range(layers):
            if index in self.layers:
                left = self.kept[self.layers.index(index)]
            counts.append(text + left)
        return tuple(counts)

    def run(
        self, decoder: Decoder, hidden: Tensor, cache: KVCache, start: int, visual: int
    ) -> Tensor:
        """Run all layers; arguments, result and errors as in `FastV.run`."""
        text = hidden.shape[1] - visual
        lengths = self.tokens_by_layer(len(decoder.layers), text, visual)
        rotary = decoder.rotary(torch.arange(hidden.shape[1], device=hidden.device))
        drop = _drop_released if self.variant == "released" else _drop_lean
        for index, layer in enumerate(decoder.layers):
            if index in self.layers:
                present, kept = hidden.shape[1] - text, lengths[index] - text
                hidden = drop(layer, hidden, rotary, start, present, kept)
                rotary = tuple(part[: hidden.shape[1]] for part in rotary)
            hidden = layer.prefill(hidden, rotary, cache.layer(index), decoder.attention)
        cache.filled(lengths, lengths)
        return hidden


def _drop_lean(
    layer: DecoderLayer, hidden: Tensor, rotary: Rotary, start: int, visual: int, kept: int
) -> Tensor:
    query, keys = layer.ask(hidden, rotary)
    scores = attention_weights(query, keys, causal=False).mean(dim=1)[:, 0]
    columns = _columns(scores[:, start : start + visual], kept, start, hidden.shape[1])
    return _take(hidden, columns)


def _drop_released(
    layer: DecoderLayer, hidden: Tensor, rotary: Rotary, start: int, visual: int, kept: int
) -> Tensor:
    query, keys, _ = layer.project(hidden.clone(), rotary)
    batch, _, tokens, width = query.shape
    present = torch.ones((batch, tokens), dtype=torch.bool, device=hidden.device)
    visible = present[:, None, None, :] & present.new_ones(tokens, tokens).tril()
    lowest = torch.finfo(query.dtype).min
    bias = torch.zeros(visible.shape, dtype=query.dtype, device=hidden.device)
    bias = bias.masked_fill(~visible, lowest)
    states = [row[valid] for row, valid in zip(hidden, present, strict=True)]
    chosen = []
    for index, state in enumerate(states):
        scores = query[index, :, -1:] @ repeat_heads(keys, query.shape[1])[index].transpose(1, 2)
        scores = scores / width**0.5 + bias[index, :, -1:]
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        ranked = weights.mean(dim=0)[:, start : start + visual].mean(dim=0)
        best = (ranked.topk(kept).indices + start).sort().values
        chosen.append(torch.cat((state[:start], state[best], state[start + visual :])))
    longest = max(int(valid.sum().item()) for valid in present) - visual + kept
    return torch.stack([functional.pad(x, (0, 0, 0, longest - len(x))) for x in chosen])


def _columns(scores: Tensor, kept: int, start: int, tokens: int) -> Tensor:
    """Return the columns that stay, (batch, tokens - visual + kept), in ascending order."""
    batch, visual = scores.shape
    best = scores.topk(kept, dim=-1).indices.sort(dim=-1).values + start
    every = torch.arange(tokens, device=scores.device).expand(batch, -1)
    return torch.cat((every[:, :start], best, every[:, start + visual :]), dim=1)


def _take(hidden: Tensor, columns: Tensor) -> Tensor:
    return hidden.gather(1, columns[..., None].expand(-1, -1, hidden.shape[2]))


def _known(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(known)}")


def _in_reach(at: Sequence[int], kept: Sequence[int], layers: int, visual: int) -> None:
    if at[-1] >= layers:
        raise ValueError(f"layer: {at[-1]} is not below the number of layers, {layers}")
    if kept[0] > visual:
        raise ValueError(f"kept: {kept[0]} is more than the {visual} visual tokens there are")
