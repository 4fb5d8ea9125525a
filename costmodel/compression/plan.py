"""What a compression method does to a forward pass, as data for the program builder.

A plan can express insertion inside the vision tower, after it, after the
projector, and inside the language model at any layer; counts that depend on
the data; methods that need attention weights; and decoder layers whose
linear, attention and cached token counts differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sympy import Expr, Integer, Symbol

from costmodel.ops import AttentionImpl, Op, Weights

__all__ = [
    "CompressionPlan",
    "DecoderGroup",
    "Insertion",
    "TokenCount",
    "TowerGroup",
]

Where = Literal["none", "vision_encoder", "after_encoder", "after_projector", "llm"]


@dataclass(frozen=True)
class Insertion:
    """Where a method acts; `layer` counts within the tower or the language model."""

    where: Where
    layer: int | None = None

    def __str__(self) -> str:
        return self.where if self.layer is None else f"{self.where} layer {self.layer}"


@dataclass(frozen=True)
class TokenCount:
    """Visual tokens kept per request; a distribution where the image decides.

    Attributes
    ----------
    mean, p50, p95 : float
        Equal for a static count.
    """

    mean: float
    p50: float
    p95: float

    @classmethod
    def static(cls, tokens: int) -> TokenCount:
        """Return a count that is the same for every input."""
        return cls(tokens, tokens, tokens)

    @property
    def is_static(self) -> bool:
        """Whether every input keeps the same number."""
        return self.mean == self.p50 == self.p95


@dataclass(frozen=True)
class TowerGroup:
    """Consecutive vision layers with the same token count.

    Attributes
    ----------
    layers : int
        How many layers.
    attention_tokens, mlp_tokens : tuple of Expr, optional
        Tokens of one sequence of each segment in the attention and in the MLP;
        None for all tokens.
    attention : {"flash", "sdpa", "eager"}, optional
        Forced implementation, for example where attention weights are read.
    held : Expr, optional
        Bytes live beside those of the layers themselves, for example attention
        maps kept of the layers before [B].
    """

    layers: int
    attention_tokens: tuple[Expr, ...] | None = None
    mlp_tokens: tuple[Expr, ...] | None = None
    attention: AttentionImpl | None = None
    held: Expr | None = None


@dataclass(frozen=True)
class DecoderGroup:
    """Consecutive decoder layers with the same visual token counts, per request.

    Attributes
    ----------
    layers : int
        How many layers.
    visual : Expr or int
        Visual tokens in the hidden state: queries, output projection, MLP.
    visual_kv : Expr or int, optional
        Visual tokens whose keys and values are computed and attended, if not `visual`.
    visual_mlp : Expr or int, optional
        Visual tokens through the MLP, if not `visual`.
    visual_attended : Expr or int, optional
        Visual tokens that attention works on as queries and keys, if not `visual`
        and `visual_kv`: features expanded again before the attention.
    visual_cached : Expr or int, optional
        Visual tokens that stay in the KV cache, if not those whose keys the attention reads
        (`visual_attended`, `visual_kv` or `visual`, the first that is given).
    attention : {"flash", "sdpa", "eager"}, optional
        Forced implementation.
    held : Expr, optional
        Bytes live beside those of the layers themselves, for example the attention map of
        an earlier layer, or hidden states that rest [B].
    """

    layers: int
    visual: Expr | int
    visual_kv: Expr | int | None = None
    visual_mlp: Expr | int | None = None
    visual_attended: Expr | int | None = None
    visual_cached: Expr | int | None = None
    attention: AttentionImpl | None = None
    held: Expr | None = None

    @property
    def entering(self) -> Expr | int:
        """Visual tokens in the hidden state that enters the first of the layers."""
        return self.visual if self.visual_kv is None else self.visual_kv

    @property
    def cached(self) -> Expr | int:
        """Visual tokens that stay in the KV cache.

        Examples
        --------
        >>> DecoderGroup(19, 0, visual_kv=576).cached
        576
        """
        given = (self.visual_cached, self.visual_attended, self.visual_kv)
        return next((tokens for tokens in given if tokens is not None), self.visual)


@dataclass(frozen=True)
class CompressionPlan:
    """The effect of one method on one request.

    Attributes
    ----------
    method : str
        Name and resolved parameters, for people.
    insertion : Insertion
        Where it acts.
    kept : TokenCount
        Visual tokens that remain, markers included, at the end of the language model.
    decoder_groups : tuple of DecoderGroup
        Cover all decoder layers.
    tower_groups : tuple of TowerGroup
        Cover all vision layers executed; empty for the unchanged tower.
    tower_layers : int, optional
        Vision layers the method needs executed, if more than the default.
    projector_rows : Expr or int, optional
        Rows the projector works on per request, if not all.
    replaces_projector : bool
        Whether the model's own projector is absent.
    ops : tuple of Op
        Its own operators.
    weights : tuple of Weights
        Its own parameters.
    values : dict of Symbol to number
        Values of the symbols its operators use.
    training : str
        What training it needs; "none" if it is training free.
    needs_attention_weights, graph_safe : bool
        Whether it reads attention weights, and whether a CUDA graph can hold it.
    notes : tuple of str
        Side effects and assumptions, for people.
    uncaptured : tuple of str
        Of several methods, those that a CUDA graph cannot hold.
    """

    method: str
    insertion: Insertion
    kept: TokenCount
    decoder_groups: tuple[DecoderGroup, ...]
    tower_groups: tuple[TowerGroup, ...] = ()
    tower_layers: int | None = None
    projector_rows: Expr | int | None = None
    replaces_projector: bool = False
    ops: tuple[Op, ...] = ()
    weights: tuple[Weights, ...] = ()
    values: dict[Symbol, float] = field(default_factory=dict)
    training: str = "none"
    needs_attention_weights: bool = False
    graph_safe: bool = True
    notes: tuple[str, ...] = ()
    uncaptured: tuple[str, ...] = ()

    @property
    def launches(self) -> Expr:
        """Kernels the method itself starts per forward pass."""
        return sum((op.launches * op.repeat for op in self.ops), start=Integer(0))
