"""Tidy shapes of PyTorch operators from the sizes of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from costmodel.errors import SpecError

__all__ = ["OPERATORS", "Call", "Shape", "UnfitError"]


class UnfitError(SpecError):
    """A call that the tidy schema has no columns for; the text says why."""


@dataclass(frozen=True)
class Call:
    """What a trace says of one call.

    Attributes
    ----------
    dims : sequence of sequence of int
        Sizes of each input, empty for what is no tensor.
    types : sequence of str
        Type of each input.
    values : sequence of str
        Value of each input that is no tensor; empty if not recorded.
    """

    dims: Sequence[Sequence[int]]
    types: Sequence[str]
    values: Sequence[str]

    def size(self, place: int, axes: int | None = None) -> Sequence[int]:
        """Return the size of one input.

        Raises
        ------
        UnfitError
            If it was not recorded or has another number of axes.
        """
        size = self.dims[place] if place < len(self.dims) else ()
        if not size or not all(isinstance(length, int) for length in size):
            raise UnfitError("Input Dims: missing; record with record_shapes=True")
        if axes is not None and len(size) != axes:
            raise UnfitError(f"Input Dims: expected {axes} axes")
        return size

    def dtype(self, place: int) -> str:
        """Return the type of one input, "" if not recorded."""
        return self.types[place] if place < len(self.types) else ""


@dataclass(frozen=True)
class Shape:
    """Tidy columns of one call."""

    kind: str
    columns: Mapping[str, str | int | bool]


def _gemm(m: int, n: int, k: int, inner: int, dtype: str, batch: int = 1) -> Shape:
    if k != inner:
        raise UnfitError("Input Dims: inner sizes differ")
    return Shape("gemm", {"batch": batch, "m": m, "n": n, "k": k, "dtype": dtype})


def _matrix_product(first: int) -> Callable[[Call], Shape]:
    def shape(call: Call) -> Shape:
        (m, k), (inner, n) = call.size(first, 2), call.size(first + 1, 2)
        return _gemm(m, n, k, inner, call.dtype(first))

    return shape


def _linear(call: Call) -> Shape:
    size, (n, inner) = call.size(0), call.size(1, 2)
    m = 1
    for length in size[:-1]:
        m *= length
    return _gemm(m, n, size[-1], inner, call.dtype(0))


def _batched(first: int) -> Callable[[Call], Shape]:
    def shape(call: Call) -> Shape:
        (batch, m, k), (_, inner, n) = call.size(first, 3), call.size(first + 1, 3)
        return _gemm(m, n, k, inner, call.dtype(first), batch)

    return shape


def _attention(kernel: str, causal_at: int, mask_at: int | None) -> Callable[[Call], Shape]:
    def shape(call: Call) -> Shape:
        batch, heads, q_len, head_dim = call.size(0, 4)
        _, kv_heads, kv_len, _ = call.size(1, 4)
        if call.size(2, 4)[3] != head_dim:
            raise UnfitError("values of another width than keys, which has no column")
        if mask_at is not None and mask_at < len(call.dims) and call.dims[mask_at]:
            raise UnfitError("an explicit mask: neither causal nor full")
        causal = call.values[causal_at] if causal_at < len(call.values) else ""
        if causal not in {"True", "False"}:
            raise UnfitError("Concrete Inputs: do not say whether the mask is causal")
        return Shape(
            "attention",
            {
                "kernel": kernel, "causal": causal == "True", "batch": batch, "q_len": q_len,
                "kv_len": kv_len, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
                "dtype": call.dtype(0),
            },
        )  # fmt: skip

    return shape


OPERATORS: Mapping[str, Callable[[Call], Shape]] = {
    "aten::mm": _matrix_product(0),
    "aten::addmm": _matrix_product(1),
    "aten::linear": _linear,
    "aten::bmm": _batched(0),
    "aten::baddbmm": _batched(1),
    "aten::scaled_dot_product_attention": _attention("sdpa", 5, 3),
    "aten::_scaled_dot_product_flash_attention": _attention("flash", 4, None),
    "aten::_scaled_dot_product_efficient_attention": _attention("efficient", 6, 3),
    "aten::_scaled_dot_product_cudnn_attention": _attention("cudnn", 6, 3),
}
"""Shape of each operator that is read, by its name in traces.

Places of ``attn_mask`` and ``is_causal`` are those of PyTorch's ``native_functions.yaml``.
"""
