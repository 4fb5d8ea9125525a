"""A runnable model's shape as the config.json that a cost model reads."""

from __future__ import annotations

import json
from typing import Any

from ..models.shapes import DecoderShape, ModelShape, VisionShape

__all__ = ["config_json"]


def config_json(shape: ModelShape) -> str:
    """Return the config.json of a shape on one line.

    Parameters
    ----------
    shape : ModelShape
        With a vision tower it becomes a ``llava`` model, else a language model alone.

    Returns
    -------
    str
        JSON in the layout of Hugging Face.

    Raises
    ------
    ValueError
        If the projector is not the two layers that ``llava`` models have.

    Examples
    --------
    >>> from ..models.shapes import load_shape
    >>> json.loads(config_json(load_shape("llava-1.5-7b@4layers")))["text_config"]["model_type"]
    'llama'
    """
    text = _text(shape.decoder)
    if shape.vision is None:
        return json.dumps(text, separators=(",", ":"))
    if shape.projector != (shape.decoder.width,) * 2:
        raise ValueError(f"{shape.name}: no llava model has a projector of {shape.projector}")
    whole = {
        "model_type": "llava",
        "text_config": text,
        "vision_config": _vision(shape.vision),
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    return json.dumps(whole, separators=(",", ":"))


def _text(shape: DecoderShape) -> dict[str, Any]:
    return {
        "model_type": "qwen2" if shape.qkv_bias else "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": False,
    }


def _vision(shape: VisionShape) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "hidden_act": "quick_gelu",
    }
