"""Number formats as timing files name them, and what they mean for bytes and peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from costmodel.specs.hardware import ComputeDtype

__all__ = ["DTYPES", "NumberFormat", "dtype_name"]


@dataclass(frozen=True)
class NumberFormat:
    """Storage and arithmetic of one format.

    Attributes
    ----------
    activation_bytes, weight_bytes : float
        Size of an element [B]; scales of quantised weights not counted.
    computes_in : tuple of str
        Formats of the arithmetic that libraries may choose from.
    """

    activation_bytes: float
    weight_bytes: float
    computes_in: tuple[ComputeDtype, ...]


DTYPES: Mapping[str, NumberFormat] = {
    "fp64": NumberFormat(8, 8, ("fp64",)),
    # Libraries may round fp32 operands to tf32.
    "fp32": NumberFormat(4, 4, ("fp32", "tf32")),
    "tf32": NumberFormat(4, 4, ("tf32",)),
    "fp16": NumberFormat(2, 2, ("fp16",)),
    "bf16": NumberFormat(2, 2, ("bf16",)),
    "fp8": NumberFormat(1, 1, ("fp8",)),
    "int8": NumberFormat(1, 1, ("int8",)),
    "int4": NumberFormat(0.5, 0.5, ("int4", "int8")),
    "fp4": NumberFormat(0.5, 0.5, ("fp4", "fp8")),
    "w8a16": NumberFormat(2, 1, ("fp16", "bf16")),
    "w4a16": NumberFormat(2, 0.5, ("fp16", "bf16")),
    "w4a8": NumberFormat(1, 0.5, ("fp8", "int8")),
}
"""Known formats by tidy name."""

_ALIASES = {
    "float64": "fp64",
    "double": "fp64",
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "c10::half": "fp16",
    "bfloat16": "bf16",
    "c10::bfloat16": "bf16",
    "fp8_block": "fp8",
    "fp8_static": "fp8",
    "float8_e4m3fn": "fp8",
    "c10::float8_e4m3fn": "fp8",
    "e4m3": "fp8",
    "int8_wo": "w8a16",
    "int4_wo": "w4a16",
    "nvfp4": "fp4",
}


def dtype_name(published: str) -> str:
    """Return the tidy name of a format; an unknown one comes back as it is.

    Examples
    --------
    >>> dtype_name("torch.bfloat16"), dtype_name("int4_wo"), dtype_name("BF16")
    ('bf16', 'w4a16', 'bf16')
    """
    key = published.strip().lower().removeprefix("torch.")
    return _ALIASES.get(key, key)
