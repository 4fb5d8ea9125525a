"""The Hugging Face-like model: transformers' own modules, with random weights and no download."""

from __future__ import annotations

from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn

from .base import DTYPES, Pruning, RunnableModel, initialise
from .shapes import DecoderShape, ModelShape, VisionShape
from .vision import projector

__all__ = ["EagerCache", "EagerModel", "build_eager"]

_MAX_POSITIONS = 32768


class EagerCache:
    """transformers' growing cache, started anew by every prefill."""

    def __init__(self) -> None:
        self.inner = transformers.DynamicCache()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens held by each layer."""
        return tuple(keys.shape[2] for keys, _ in self.snapshot())

    def snapshot(self) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values of each layer; updates make new tensors and leave these."""
        if hasattr(self.inner, "layers"):
            return [(layer.keys, layer.values) for layer in self.inner.layers]
        return list(zip(self.inner.key_cache, self.inner.value_cache, strict=True))

    def restore(self, held: list[tuple[Tensor, Tensor]]) -> None:
        """Go back to a snapshot; `DynamicCache.crop` counts differently from version to version."""
        if hasattr(self.inner, "layers"):
            for layer, (keys, values) in zip(self.inner.layers, held, strict=True):
                layer.keys, layer.values = keys, values
            return
        self.inner.key_cache = [keys for keys, _ in held]
        self.inner.value_cache = [values for _, values in held]
        # Before version 4.48 the cache counts the tokens that its first layer has seen.
        if hasattr(self.inner, "_seen_tokens"):
            self.inner._seen_tokens = held[0][0].shape[2]


class EagerModel(RunnableModel):
    """A model run by transformers' code; made by `build_eager`.

    Attributes
    ----------
    vision : CLIPVisionModel or None
        The tower; all its layers run.
    decoder : LlamaModel or Qwen2Model
        The language model; Qwen2's where queries, keys and values have biases.
    head : Linear
        Language-model head.
    """

    def __init__(self, shape: ModelShape, dtype: torch.dtype, attention: str) -> None:
        super().__init__()
        self.shape, vision = shape, shape.vision
        self.vision: Any = None
        self.projector = None
        if vision is not None:
            self.vision = transformers.CLIPVisionModel(_clip_config(vision, attention)).to(dtype)
            self.projector = projector(vision.width, shape.projector, dtype)
        config = _decoder_config(shape.decoder, attention)
        kind = transformers.Qwen2Model if shape.decoder.qkv_bias else transformers.LlamaModel
        self.decoder = kind(config).to(dtype)
        self.head = nn.Linear(shape.decoder.width, shape.decoder.vocab, bias=False, dtype=dtype)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:  # noqa: D102
        done = self.vision(pixels, output_hidden_states=True)
        return done.hidden_states[-2][:, 1:], done.pooler_output

    def embed(self, ids: Tensor) -> Tensor:  # noqa: D102
        return self.decoder.embed_tokens(ids)

    def new_cache(self, batch: int, capacity: int) -> EagerCache:  # noqa: D102
        return EagerCache()

    def run_prompt(  # noqa: D102
        self, hidden: Tensor, cache: EagerCache, start: int, visual: int, pruning: Pruning | None
    ) -> Tensor:
        if pruning is not None:
            raise ValueError("pruning: transformers' decoder has none; build the fused model")
        cache.inner = transformers.DynamicCache()
        return self._logits(hidden, cache)

    def decode_step(self, ids: Tensor, cache: EagerCache, advance: bool = True) -> Tensor:  # noqa: D102
        # A snapshot keeps the old cache in memory.
        held = None if advance else cache.snapshot()
        logits = self._logits(self.embed(ids), cache)
        if held is not None:
            cache.restore(held)
        return logits

    def _logits(self, hidden: Tensor, cache: EagerCache) -> Tensor:
        done = self.decoder(inputs_embeds=hidden, past_key_values=cache.inner, use_cache=True)
        return self.head(done.last_hidden_state[:, -1])


def build_eager(
    shape: ModelShape,
    *,
    device: torch.device | str = "cpu",
    dtype: str = "fp32",
    attention: Literal["sdpa", "eager"] = "sdpa",
    seed: int = 0,
) -> EagerModel:
    """Make a Hugging Face-like model with random weights.

    Parameters
    ----------
    shape : ModelShape
        Sizes; a shape too large for the machine can be `~ModelShape.truncated`.
    device : device
        Where; on ``"meta"`` it has shapes only.
    dtype : {"fp32", "fp16", "bf16"}
        Format of weights and activations.
    attention : {"sdpa", "eager"}
        transformers' implementation in tower and decoder.
    seed : int
        Seed of the weights.

    Returns
    -------
    EagerModel

    Raises
    ------
    ValueError
        If format or attention are unknown.
    """
    known_kinds = ("sdpa", "eager")
    for name, value, known in (("dtype", dtype, DTYPES), ("attention", attention, known_kinds)):
        if value not in known:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(known)}")
    with torch.device("meta"):
        model = EagerModel(shape, DTYPES[dtype], attention)
    initialise(model, device, seed)
    if torch.device(device).type != "meta":
        _fill_buffers(model, shape.decoder)
    return model


def _fill_buffers(model: nn.Module, shape: DecoderShape) -> None:
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            device = module.inv_freq.device
            exponents = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
            # Kept in fp32, as transformers keeps it when it makes the model itself.
            module.inv_freq = shape.rope_theta**-exponents
            module.original_inv_freq = module.inv_freq
        if hasattr(module, "position_ids"):
            count = module.position_ids.shape[-1]
            module.position_ids = torch.arange(count, device=module.position_ids.device)[None]


def _clip_config(shape: VisionShape, attention: str) -> Any:
    return transformers.CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        hidden_act="quick_gelu",
        attn_implementation=attention,
    )


def _decoder_config(shape: DecoderShape, attention: str) -> Any:
    kind = transformers.Qwen2Config if shape.qkv_bias else transformers.LlamaConfig
    return kind(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.norm_eps,
        rope_theta=shape.rope_theta,
        max_position_embeddings=_MAX_POSITIONS,
        attn_implementation=attention,
    )
