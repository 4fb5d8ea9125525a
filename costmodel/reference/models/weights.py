"""Give the fused model the weights of transformers' modules, to compare the two."""

from __future__ import annotations

import torch
from torch import nn

from .eager import EagerModel
from .fused import FusedModel

__all__ = ["copy_weights"]


def copy_weights(source: EagerModel, target: FusedModel) -> None:
    """Copy all weights of `source` into `target`, joining matrices that are fused there.

    Parameters
    ----------
    source : EagerModel
        Unchanged.
    target : FusedModel
        Of the same shape; its device and format stay.
    """
    if source.vision is not None and target.vision is not None:
        _copy_vision(source.vision, target)
        target.projector.load_state_dict(source.projector.state_dict())
    theirs, ours = source.decoder, target.decoder
    ours.embed.weight.copy_(theirs.embed_tokens.weight)
    ours.norm.weight.copy_(theirs.norm.weight)
    ours.head.weight.copy_(source.head.weight)
    for old, new in zip(theirs.layers, ours.layers, strict=True):
        new.input_norm.weight.copy_(old.input_layernorm.weight)
        new.mlp_norm.weight.copy_(old.post_attention_layernorm.weight)
        attention, mlp = old.self_attn, old.mlp
        _join(new.qkv_proj, attention.q_proj, attention.k_proj, attention.v_proj)
        _join(new.o_proj, attention.o_proj)
        _join(new.gate_up_proj, mlp.gate_proj, mlp.up_proj)
        _join(new.down_proj, mlp.down_proj)


def _copy_vision(source: nn.Module, target: FusedModel) -> None:
    # Up to version 4 the parts sit one level deeper.
    theirs, ours = getattr(source, "vision_model", source), target.vision
    ours.patch_embed.weight.copy_(theirs.embeddings.patch_embedding.weight.flatten(1))
    ours.class_token.copy_(theirs.embeddings.class_embedding)
    ours.positions.copy_(theirs.embeddings.position_embedding.weight)
    _same(ours.pre_norm, theirs.pre_layrnorm)
    _same(ours.post_norm, theirs.post_layernorm)
    for old, new in zip(theirs.encoder.layers, ours.layers, strict=True):
        _same(new.norm_1, old.layer_norm1)
        _same(new.norm_2, old.layer_norm2)
        attention = old.self_attn
        _join(new.qkv_proj, attention.q_proj, attention.k_proj, attention.v_proj)
        _join(new.o_proj, attention.out_proj)
        _join(new.fc1, old.mlp.fc1)
        _join(new.fc2, old.mlp.fc2)


def _same(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def _join(target: nn.Linear, *sources: nn.Linear) -> None:
    target.weight.copy_(torch.cat([part.weight for part in sources]))
    if target.bias is not None:
        target.bias.copy_(torch.cat([part.bias for part in sources]))
