"""Shapes of the runnable models, and how much of a model a machine can hold.

Plain numbers: this module needs neither torch nor the rest of the package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["DTYPE_BYTES", "PRESETS", "DecoderShape", "ModelShape", "VisionShape", "load_shape"]

DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of one number, by the names the cost model gives the formats."""


@dataclass(frozen=True)
class VisionShape:
    """A CLIP vision transformer over square images.

    Attributes
    ----------
    image_size, patch_size : int
        Side of the image and of a patch [pixels].
    width, layers, heads, mlp_width : int
        Hidden size, layers that exist (and all run), heads, inner size of the MLP.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int

    def __post_init__(self) -> None:
        _divides("image_size", self.image_size, "patch_size", self.patch_size)
        _divides("width", self.width, "heads", self.heads)

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of an image, which are also the visual tokens."""
        return self.grid**2

    @property
    def parameters(self) -> int:
        r"""Parameters of the tower, both outer norms and the class token included.

        .. math:: N = M(4d^2 + 2df + 9d + f) + 3P^2d + d + (g+1)d + 4d
        """
        d, f = self.width, self.mlp_width
        layer = 4 * d * d + 2 * d * f + 9 * d + f
        return self.layers * layer + 3 * self.patch_size**2 * d + d + (self.patches + 1) * d + 4 * d


@dataclass(frozen=True)
class DecoderShape:
    """A decoder of the Llama kind: RMSNorm, rotary positions, gated MLP, untied head.

    Attributes
    ----------
    layers, width, heads, kv_heads, head_dim, mlp_width, vocab : int
        Sizes; ``kv_heads < heads`` is grouped-query attention.
    qkv_bias : bool
        Biases on queries, keys and values (Qwen2).
    rope_theta : float
        Base of the rotary frequencies.
    norm_eps : float
        Epsilon of RMSNorm.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab: int
    qkv_bias: bool = False
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _divides("heads", self.heads, "kv_heads", self.kv_heads)
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, not {self.head_dim}")

    @property
    def q_width(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys of a token, and of all its values."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        r"""Parameters of one layer.

        .. math:: 2dHD + 2dGD + 3df + 2d \;(+\; HD + 2GD \text{ with biases})
        """
        d, q, kv = self.width, self.q_width, self.kv_width
        bias = q + 2 * kv if self.qkv_bias else 0
        return 2 * d * q + 2 * d * kv + 3 * d * self.mlp_width + 2 * d + bias

    @property
    def head_parameters(self) -> int:
        """Parameters of the untied language-model head."""
        return self.vocab * self.width

    @property
    def parameters(self) -> int:
        """Parameters of embedding, layers and final norm, without the head."""
        return self.layers * self.layer_parameters + self.head_parameters + self.width

    def kv_cache_bytes(self, tokens: int, dtype: str, batch: int = 1) -> int:
        """Return the size of a cache of `tokens` per sequence in all layers [B]."""
        return 2 * self.layers * tokens * self.kv_width * batch * _dtype_bytes(dtype)


@dataclass(frozen=True)
class ModelShape:
    """Vision tower, projector and decoder.

    Attributes
    ----------
    name : str
        Label of whatever is measured on it; a cut model says so: ``llava-1.5-7b@4layers``.
    decoder : DecoderShape
        The language model.
    vision : VisionShape, optional
        The vision tower; None for a language model alone.
    projector : tuple of int
        Output widths of the projector's linear layers, with GELU between them.
    """

    name: str
    decoder: DecoderShape
    vision: VisionShape | None = None
    projector: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.projector) != (self.vision is not None):
            raise ValueError(f"{self.name}: vision tower and projector belong together")
        if self.projector and self.projector[-1] != self.decoder.width:
            raise ValueError(
                f"{self.name}: projector ends at width {self.projector[-1]}, "
                f"the decoder has {self.decoder.width}"
            )

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one image before compression; 0 without a vision tower."""
        return self.vision.patches if self.vision is not None else 0

    @property
    def projector_parameters(self) -> int:
        """Parameters of the projector."""
        if self.vision is None:
            return 0
        widths = (self.vision.width, *self.projector)
        return sum((widths[i] + 1) * widths[i + 1] for i in range(len(self.projector)))

    @property
    def parameters(self) -> int:
        """All parameters, the head included."""
        vision = self.vision.parameters if self.vision is not None else 0
        decoder = self.decoder.parameters + self.decoder.head_parameters
        return vision + self.projector_parameters + decoder

    def truncated(self, layers: int) -> ModelShape:
        """Return the model with the first `layers` decoder layers, labelled so.

        Raises
        ------
        ValueError
            If there are not that many layers, or none are asked for.

        Examples
        --------
        >>> load_shape("llava-1.5-7b").truncated(4).name
        'llava-1.5-7b@4layers'
        """
        if not 1 <= layers <= self.decoder.layers:
            raise ValueError(f"layers: {layers} is not a number from 1 to {self.decoder.layers}")
        if layers == self.decoder.layers:
            return self
        base = self.name.partition("@")[0]
        return replace(
            self, name=f"{base}@{layers}layers", decoder=replace(self.decoder, layers=layers)
        )

    def fits(self, memory_bytes: float, dtype: str, tokens: int = 0, batch: int = 1) -> int:
        """Return how many decoder layers fit into memory beside all other parts.

        Parameters
        ----------
        memory_bytes : float
            What weights and KV cache may take [B]; leave the activations out of it.
        dtype : {"fp32", "fp16", "bf16"}
            Format of weights and cache.
        tokens, batch : int
            Sequences of the KV cache.

        Returns
        -------
        int
            From 0 (not even one fits) to all layers.

        Examples
        --------
        >>> shape = load_shape("llava-1.5-13b")
        >>> shape.fits(48e9, "fp16"), shape.fits(16e9, "fp16"), shape.fits(1e9, "fp16")
        (40, 23, 0)
        """
        size, one = _dtype_bytes(dtype), replace(self.decoder, layers=1)
        per_layer = one.layer_parameters * size + one.kv_cache_bytes(tokens, dtype, batch)
        rest = (self.parameters - self.decoder.layers * one.layer_parameters) * size
        return max(0, min(self.decoder.layers, int((memory_bytes - rest) // per_layer)))


def load_shape(name: str) -> ModelShape:
    """Return a preset; ``name@4layers`` is the preset cut to that many layers.

    Raises
    ------
    ValueError
        If there is no such preset, or it has not that many layers.

    Examples
    --------
    >>> load_shape("llava-1.5-7b").visual_tokens, load_shape("llama-3-8b@2layers").decoder.layers
    (576, 2)
    """
    base, _, cut = name.partition("@")
    if base not in PRESETS:
        raise ValueError(f"model: {base!r} is none of {', '.join(PRESETS)}")
    if not cut:
        return PRESETS[base]
    layers = cut.removesuffix("layers")
    if not layers.isdigit():
        raise ValueError(f"model: {name!r} should end in @<number>layers")
    return PRESETS[base].truncated(int(layers))


def _dtype_bytes(dtype: str) -> int:
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"dtype: {dtype!r} is none of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[dtype]


def _divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        raise ValueError(f"{whole_name} ({whole}) must be a multiple of {part_name} ({part})")


_CLIP_L_336 = VisionShape(336, 14, width=1024, layers=24, heads=16, mlp_width=4096)


def _llama(
    layers: int, width: int, heads: int, mlp_width: int, vocab: int, **rest: int | float
) -> DecoderShape:
    kv_heads = int(rest.pop("kv_heads", heads))
    head_dim = width // heads
    return DecoderShape(layers, width, heads, kv_heads, head_dim, mlp_width, vocab, **rest)  # type: ignore[arg-type]


PRESETS = {
    shape.name: shape
    for shape in (
        # The llava-hf checkpoints pad the embedding to 32064 rows.
        ModelShape(
            "llava-1.5-7b", _llama(32, 4096, 32, 11008, 32064), _CLIP_L_336, (4096, 4096)
        ),
        ModelShape(
            "llava-1.5-13b", _llama(40, 5120, 40, 13824, 32064), _CLIP_L_336, (5120, 5120)
        ),
        ModelShape("llama-2-7b", _llama(32, 4096, 32, 11008, 32000)),
        ModelShape(
            "llama-3-8b", _llama(32, 4096, 32, 14336, 128256, kv_heads=8, rope_theta=500000.0)
        ),
        # The language model of qwen2.5-vl-7b, with plain instead of sectioned rotary positions.
        ModelShape(
            "qwen2.5-7b",
            _llama(
                28, 3584, 28, 18944, 152064,
                kv_heads=4, qkv_bias=True, rope_theta=1000000.0, norm_eps=1e-6,
            ),
        ),
        # Proportions of llava-1.5 at a size for tests: 64 visual tokens, 5 MB in fp32.
        ModelShape(
            "llava-tiny",
            _llama(4, 128, 4, 344, 1024),
            VisionShape(112, 14, width=64, layers=3, heads=4, mlp_width=256),
            (128, 128),
        ),
        # The 576 visual tokens of llava-1.5 at widths that a CPU prefills in a tenth of a second.
        ModelShape(
            "llava-small",
            _llama(6, 512, 8, 1376, 8192),
            VisionShape(336, 14, width=256, layers=4, heads=4, mlp_width=1024),
            (512, 512),
        ),
    )
}  # fmt: skip
"""Known shapes by name; those of real models equal the catalogue's."""
