"""What is known of measured attention kernels beforehand: tiles, packing, splitting.

Tiles are those of the kernels' sources where these are public: FlashAttention-2
(``flash_fwd_launch_template.h``), its paged variant in vLLM, FlashAttention-3
(``tile_size.h``).  Of the others, the ones that fit best on head configurations left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from costmodel.calibration.fitting import Samples
from costmodel.errors import UnknownNameError

__all__ = ["RESIDUAL_NOISE", "RESIDUAL_SCALES", "SETTINGS", "settings_of"]

Settings = Mapping[str, float]

RESIDUAL_SCALES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        # Queries and keys were measured equal, so that along the measured diagonal two
        # lengths of 1.4 octaves are one of 1; off it the correction fades.
        "attention_prefill": (3.0, 1.4, 1.4, 3.0, 3.0, 0.5),
        "attention_encoder": (3.0, 1.4, 1.4, 3.0, 3.0, 0.5),
        "attention_decode": (3.0, 3.0, 3.0, 3.0, 0.5),
    }
)
"""Correlation lengths [octaves] of the correction, in the order of the model's sizes."""

RESIDUAL_NOISE = 0.4
"""Scatter of single rows over what neighbours share."""


def _tiles(
    rows: tuple[float, float, float], keys: tuple[float, float, float], pow2: float = 0.0
) -> dict[str, float]:
    """Return tile parameters for head dims up to 64, 128 and 256."""
    names = (64, 128, 256)
    return (
        {f"bq{name}": size for name, size in zip(names, rows, strict=True)}
        | {f"bk{name}": size for name, size in zip(names, keys, strict=True)}
        | {"pow2": pow2}
    )


_PAGED_FLASH2 = _tiles((64, 64, 64), (256, 128, 64))
_FLASH2 = _tiles((128, 128, 64), (128, 64, 64))
_FLASH3 = _tiles((192, 128, 128), (128, 128, 80))
_FLASH3_LONG = _tiles((192, 192, 128), (128, 144, 80))
_FLASH3_DECODE = _tiles((64, 64, 64), (128, 128, 80))
_FLASH3_AMPERE = _tiles((128, 128, 128), (64, 64, 64))
_FLASHINFER = _tiles((128, 128, 64), (64, 64, 64))
_SQUARE = _tiles((64, 64, 64), (64, 64, 64))
_TRITON = _tiles((64, 64, 64), (64, 64, 64), pow2=1.0)

_WHOLE = {"split": 0.0, "slots": 0.0, "es": 1.0, "ts": 0.0}
_BY_LENGTH = {"split": 1.0, "slots": 0.0}
_TO_FILL = {"split": 1.0, "slots": 2.0, "es": 1.0}
_PLAIN = {"pack": 0.0}
_PACKED = {"pack": 1.0}

_ANY_GROUP = {"gx": 0.0, "cv": 3.0, "tv": 1e-6}
_DECODE_GROUPED = _ANY_GROUP | {"slots": 2.0, "gs": 1.0, "es": 1.0, "tq": 0.0}
_DECODE_BY_LENGTH = _ANY_GROUP | {"slots": 0.0, "gs": 0.0, "tc": 0.0, "cc": 0.0}
_DECODE_TO_FILL = {"slots": 2.0, "gs": 0.0, "es": 1.0, "tq": 0.0, "tc": 0.0, "cc": 0.0}
_DECODE_FLASHINFER = _tiles((16, 16, 16), (64, 64, 64)) | _ANY_GROUP | _DECODE_TO_FILL
# XQA serves groups of up to 32 query heads, masked multi-head attention all others.
_DECODE_TENSORRT = _tiles((16, 16, 16), (64, 64, 64)) | {"gx": 32.0} | _DECODE_TO_FILL

SETTINGS: Mapping[str, Mapping[str, Settings]] = MappingProxyType(
    {
        "attention_prefill": {
            "vllm_flash_attn": _PAGED_FLASH2 | _PLAIN | _WHOLE,
            "vllm_flash_attn_fa2": _PAGED_FLASH2 | _PLAIN | _WHOLE,
            "vllm_flash_attn_fa3": _FLASH3 | _PACKED | _BY_LENGTH,
            "flash_attention": _FLASH3_AMPERE | _PACKED | _BY_LENGTH,
            "fa3": _FLASH3 | _PACKED | _BY_LENGTH,
            "flashinfer": _FLASHINFER | _PACKED | _TO_FILL | {"wt": 0.0},
            "triton": _SQUARE | _PLAIN | _WHOLE,
            "torch_flow": _SQUARE | _PLAIN | _WHOLE,
        },
        "attention_encoder": {
            "vllm_vit_flash_attn_fa2": _FLASH2 | _PLAIN | _WHOLE,
            "vllm_vit_flash_attn_fa3": _FLASH3_LONG | _PLAIN | _BY_LENGTH,
            "flash_attention_v3": _FLASH3_LONG | _PLAIN | _WHOLE,
            "triton": _TRITON | _PLAIN | _WHOLE,
            "torch_flow": _FLASH2 | _PLAIN | _WHOLE,
        },
        "attention_decode": {
            "vllm_flash_attn": _PAGED_FLASH2 | _DECODE_GROUPED,
            "vllm_flash_attn_fa2": _PAGED_FLASH2 | _DECODE_GROUPED,
            "vllm_flash_attn_fa3": _FLASH3_DECODE | _DECODE_BY_LENGTH,
            "flash_attention": _FLASH3_AMPERE | _DECODE_BY_LENGTH,
            "fa3": _FLASH3_DECODE | _DECODE_BY_LENGTH,
            "flashinfer": _DECODE_FLASHINFER,
            "triton": _DECODE_FLASHINFER,
            "torch_flow": _DECODE_TENSORRT,
        },
    }
)
"""Kind of operator -> kernel as timing files call it -> parameters that are not fitted."""


def settings_of(kind: str, kernel: str, samples: Samples | None = None) -> dict[str, float]:
    """Return the parameters of a measured kernel that are not fitted.

    Parameters
    ----------
    kind : str
        ``attention_prefill``, ``attention_encoder`` or ``attention_decode``.
    kernel : str
        Name in timing files.
    samples : Samples, optional
        What will be fitted: one head dim alone cannot show how efficiency depends on it.

    Returns
    -------
    dict of str to float

    Raises
    ------
    UnknownNameError
        If the kind or kernel is not known.

    Examples
    --------
    >>> settings_of("attention_prefill", "fa3")["bq64"]
    192
    """
    if kind not in SETTINGS:
        raise UnknownNameError("attention kind", kind, SETTINGS)
    if kernel not in SETTINGS[kind]:
        raise UnknownNameError("attention kernel", kernel, SETTINGS[kind])
    settings = dict(SETTINGS[kind][kernel])
    if samples is not None and len(set(samples.shapes["head_dim"].tolist())) == 1:
        settings["eh"] = 0.0
    return settings
