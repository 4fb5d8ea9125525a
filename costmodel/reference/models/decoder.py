"""A Llama decoder as serving engines write it: fused projections, static KV cache.

Nothing here waits for the device and all shapes follow from Python integers, so that a CUDA
graph can capture a pass and `torch.compile` sees one graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import AttentionKind, attend
from .shapes import DecoderShape

__all__ = ["Decoder", "DecoderLayer", "KVCache", "Rotary", "rotate", "write_cache"]

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, each of shape (tokens, head_dim) or (batch, 1, tokens, head_dim)."""


class KVCache:
    """Keys and values of all layers, in buffers that stay where they are.

    Attributes
    ----------
    keys, values : list of Tensor
        One of shape (batch, kv_heads, capacity, head_dim) for each layer.
    lengths : tuple of int
        Tokens held by each layer; fewer in layers that came after pruning.
    positions : tuple of int
        Rotary position of the next token in each layer.
    """

    def __init__(
        self,
        shape: DecoderShape,
        batch: int,
        capacity: int | Sequence[int],
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        capacities = [capacity] * shape.layers if isinstance(capacity, int) else list(capacity)
        sizes = [(batch, shape.kv_heads, tokens, shape.head_dim) for tokens in capacities]
        self.keys = [torch.zeros(size, device=device, dtype=dtype) for size in sizes]
        self.values = [torch.zeros(size, device=device, dtype=dtype) for size in sizes]
        self.lengths: tuple[int, ...] = (0,) * shape.layers
        self.positions: tuple[int, ...] = (0,) * shape.layers

    @property
    def held_bytes(self) -> int:
        """Bytes of the tokens held, without spare capacity [B]."""
        used = zip(self.keys, self.lengths, strict=True)
        return sum(2 * keys[:, :, :length].nbytes for keys, length in used)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the buffers of keys and values of one layer."""
        return self.keys[index], self.values[index]

    def filled(self, lengths: Sequence[int], positions: Sequence[int]) -> None:
        """Say how far the layers are filled after a prefill."""
        self.lengths, self.positions = tuple(lengths), tuple(positions)

    def advance(self) -> None:
        """Keep the token that the last decode step wrote."""
        self.lengths = tuple(length + 1 for length in self.lengths)
        self.positions = tuple(position + 1 for position in self.positions)


class DecoderLayer(nn.Module):  # type: ignore[misc]
    """Norm, fused qkv, rotary, attention, output projection; norm, fused gate and up, down."""

    def __init__(self, shape: DecoderShape, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        qkv, d = shape.q_width + 2 * shape.kv_width, shape.width
        self.input_norm = nn.RMSNorm(d, eps=shape.norm_eps, dtype=dtype)
        self.qkv_proj = nn.Linear(d, qkv, bias=shape.qkv_bias, dtype=dtype)
        self.o_proj = nn.Linear(shape.q_width, d, bias=False, dtype=dtype)
        self.mlp_norm = nn.RMSNorm(d, eps=shape.norm_eps, dtype=dtype)
        self.gate_up_proj = nn.Linear(d, 2 * shape.mlp_width, bias=False, dtype=dtype)
        self.down_proj = nn.Linear(shape.mlp_width, d, bias=False, dtype=dtype)

    def project(self, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by head, of shape (batch, heads, tokens, head_dim)."""
        shape = self.shape
        widths = (shape.q_width, shape.kv_width, shape.kv_width)
        joined = self.qkv_proj(self.input_norm(hidden))
        query, keys, values = (
            part.unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
            for part in joined.split(widths, dim=-1)
        )
        return rotate(query, rotary), rotate(keys, rotary), values

    def ask(self, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Return the query of the last token and the keys of all, to rank tokens by."""
        shape = self.shape
        normed = self.input_norm(hidden)
        bias = self.qkv_proj.bias
        parts, end = [], 0
        for width, rows in ((shape.q_width, normed[:, -1:]), (shape.kv_width, normed)):
            used = slice(end, end + width)
            end += width
            made = functional.linear(
                rows, self.qkv_proj.weight[used], None if bias is None else bias[used]
            )
            heads = made.unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
            place = tuple(part[..., -rows.shape[1] :, :] for part in rotary)
            parts.append(rotate(heads, place))
        return parts[0], parts[1]

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the hidden state after output projection and MLP."""
        hidden = hidden + self.o_proj(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up_proj(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down_proj(functional.silu(gate) * up)

    def prefill(
        self, hidden: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], kind: AttentionKind
    ) -> Tensor:
        """Run on all tokens of a prompt and write their keys and values to the cache."""
        query, keys, values = self.project(hidden, rotary)
        write_cache(cache, keys, values)
        return self.finish(hidden, attend(query, keys, values, causal=True, kind=kind))

    def decode(
        self,
        hidden: Tensor,
        rotary: Rotary,
        cache: tuple[Tensor, Tensor],
        past: int,
        kind: AttentionKind,
    ) -> Tensor:
        """Run on one new token that sees `past` cached ones and itself."""
        query, keys, values = self.project(hidden, rotary)
        write_cache(cache, keys, values, past)
        seen = (part[:, :, : past + 1] for part in cache)
        return self.finish(hidden, attend(query, *seen, causal=False, kind=kind))


class Decoder(nn.Module):  # type: ignore[misc]
    """Embedding, layers, final norm and head.

    Parameters
    ----------
    shape : DecoderShape
        Sizes.
    dtype : torch.dtype
        Format of the weights.
    attention : {"flash", "sdpa", "eager"}
        Implementation in all layers.
    """

    def __init__(
        self, shape: DecoderShape, dtype: torch.dtype, attention: AttentionKind = "flash"
    ) -> None:
        super().__init__()
        self.shape, self.attention = shape, attention
        self.embed = nn.Embedding(shape.vocab, shape.width, dtype=dtype)
        self.layers = nn.ModuleList(DecoderLayer(shape, dtype) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps, dtype=dtype)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False, dtype=dtype)

    def rotary(self, positions: Tensor) -> Rotary:
        """Return cosines and sines of positions, shape (..., tokens), in the weights' format."""
        shape = self.shape
        exponents = torch.arange(0, shape.head_dim, 2, device=positions.device) / shape.head_dim
        angles = positions[..., None].float() * shape.rope_theta ** -exponents.float()
        angles = torch.cat((angles, angles), dim=-1)
        dtype = self.norm.weight.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def prefill(self, hidden: Tensor, cache: KVCache) -> Tensor:
        """Run all layers on the embeddings of a prompt.

        Parameters
        ----------
        hidden : Tensor
            Shape (batch, tokens, width).
        cache : KVCache
            Filled.

        Returns
        -------
        Tensor
            Hidden state before the final norm, shape (batch, tokens, width).
        """
        tokens = hidden.shape[1]
        rotary = self.rotary(torch.arange(tokens, device=hidden.device))
        for index, layer in enumerate(self.layers):
            hidden = layer.prefill(hidden, rotary, cache.layer(index), self.attention)
        cache.filled([tokens] * len(self.layers), [tokens] * len(self.layers))
        return hidden

    def decode(self, hidden: Tensor, cache: KVCache) -> Tensor:
        """Run all layers on the embedding of one new token, shape (batch, 1, width)."""
        if hidden.shape[1] != 1:
            raise ValueError(f"a decode step takes 1 token of each sequence, not {hidden.shape[1]}")
        # Layers after pruning may count positions anew; most share one.
        made = {
            position: self.rotary(torch.full((1,), position, device=hidden.device))
            for position in sorted(set(cache.positions))
        }
        for index, layer in enumerate(self.layers):
            rotary, past = made[cache.positions[index]], cache.lengths[index]
            hidden = layer.decode(hidden, rotary, cache.layer(index), past, self.attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the last position, shape (batch, vocab); the norm runs on all."""
        return self.head(self.norm(hidden)[:, -1])


def write_cache(cache: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, past: int = 0) -> None:
    """Write keys and values of new tokens behind the `past` ones that a layer holds.

    Raises
    ------
    ValueError
        If the buffers are too short.
    """
    end, capacity = past + keys.shape[2], cache[0].shape[2]
    # torch would broadcast one token into the empty slice behind the end without a word.
    if end > capacity:
        raise ValueError(f"capacity: a cache for {capacity} tokens cannot hold {end}")
    cache[0][:, :, past:end].copy_(keys)
    cache[1][:, :, past:end].copy_(values)


def rotate(heads: Tensor, rotary: Rotary) -> Tensor:
    """Apply rotary positions to (batch, heads, tokens, head_dim), halves paired as in Llama."""
    first, second = heads.chunk(2, dim=-1)
    return heads * rotary[0] + torch.cat((-second, first), dim=-1) * rotary[1]
