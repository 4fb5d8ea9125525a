"""A vision-language model as data: vision tower, projector, language model, image rule.

No formulas here; `costmodel.blocks` turns these shapes into operators.
"""

from __future__ import annotations

from datetime import date as Date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from costmodel.specs.base import Spec
from costmodel.specs.vision_rules import ImageRule

__all__ = ["ModelSource", "ModelSpec", "ProjectorSpec", "TextSpec", "VisionSpec"]

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
NormKind = Literal["layernorm", "rmsnorm"]


class TextSpec(Spec):
    """A decoder-only language model of the Llama kind."""

    model_type: str
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    vocab_size: Positive
    gated_mlp: bool = True
    activation: str = "silu"
    norm: NormKind = "rmsnorm"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_word_embeddings: bool = False
    max_position_embeddings: Positive | None = None
    sliding_window: Positive | None = None

    @model_validator(mode="after")
    def _heads_divide(self) -> TextSpec:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        return self


class VisionSpec(Spec):
    """A vision transformer.

    Attributes
    ----------
    layers : int
        Layers that exist (and hold parameters).
    layers_executed : int
        Layers that run by default; Hugging Face runs all 24 of CLIP although
        LLaVA reads the output of layer 23.
    layers_needed : int, optional
        Layers up to the last one whose output is read, which is where serving
        engines stop; None if that is all of them.
    positions : int
        Rows of the learned position embedding; 0 where positions are rotary.
    pre_norm, post_norm : bool
        A norm before the first layer (CLIP) and after the last.
    post_norm_rows : {"all", "class", "none"}
        Tokens the post norm runs over; "none" if it only holds parameters.
    layer_scale : bool
        Two learned vectors per layer (InternViT).
    window_patches : int, optional
        Side of an attention window in patches, before spatial merging; None
        for full attention in all layers.
    full_attention_layers : tuple of int
        Layers that keep full attention although `window_patches` is set.
    unused_parameters : int
        Parameters in the checkpoint's tower that no counted operator touches.
    """

    model_type: str
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    layers_executed: Positive
    layers_needed: Positive | None = None
    heads: Positive
    head_dim: Positive
    patch_size: Positive
    temporal_patch_size: Positive = 1
    channels: Positive = 3
    image_size: Positive | None = None
    patch_bias: bool = False
    class_token: bool = False
    positions: Count = 0
    rotary: bool = False
    norm: NormKind = "layernorm"
    pre_norm: bool = False
    post_norm: bool = True
    post_norm_rows: Literal["all", "class", "none"] = "all"
    gated_mlp: bool = False
    activation: str = "gelu"
    qkv_fused: bool = False
    qkv_bias: bool = True
    o_bias: bool = True
    mlp_bias: bool = True
    qk_norm: bool = False
    layer_scale: bool = False
    window_patches: Positive | None = None
    full_attention_layers: tuple[Count, ...] = ()
    unused_parameters: Count = 0

    @model_validator(mode="after")
    def _consistent(self) -> VisionSpec:
        if self.layers_executed > self.layers:
            raise ValueError(
                f"layers_executed ({self.layers_executed}) exceeds layers ({self.layers})"
            )
        if self.layers_needed is not None and self.layers_needed > self.layers:
            raise ValueError(f"layers_needed ({self.layers_needed}) exceeds layers ({self.layers})")
        return self


class ProjectorSpec(Spec):
    """Norm, merge of merge x merge neighbours, then linear layers with an activation between.

    Attributes
    ----------
    in_features : int
        Width of one tower token that enters (hidden size times the number of
        concatenated feature layers).
    merge : int
        Side of the neighbourhood joined along channels; the first linear layer
        reads ``in_features * merge**2``.
    norm : {"layernorm", "rmsnorm"}, optional
        Norm before the first linear layer.
    norm_after_merge : bool
        Whether that norm sees the merged width.
    widths : tuple of int
        Output width of each linear layer.
    newline : bool
        A learned newline embedding (``image_newline``).
    """

    kind: str
    in_features: Positive
    merge: Positive = 1
    norm: NormKind | None = None
    norm_after_merge: bool = False
    widths: tuple[Positive, ...] = Field(min_length=1)
    activation: str = "gelu"
    bias: bool = True
    newline: bool = False


class ModelSource(Spec):
    """Where a preset's numbers come from."""

    what: str
    url: str
    date: Date
    note: str = ""


class ModelSpec(Spec):
    """A language model with or without a vision tower."""

    name: str
    title: str
    family: str
    text: TextSpec
    vision: VisionSpec | None = None
    projector: ProjectorSpec | None = None
    image_rule: ImageRule | None = None
    default_image: tuple[Positive, Positive] | None = Field(
        default=None, description="(width, height) in pixels when no image is named"
    )
    sources: tuple[ModelSource, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _vision_is_complete(self) -> ModelSpec:
        parts = (self.vision, self.projector, self.image_rule, self.default_image)
        if any(part is not None for part in parts) and any(part is None for part in parts):
            raise ValueError(
                "a model with images needs all of vision, projector, image_rule and default_image"
            )
        return self
