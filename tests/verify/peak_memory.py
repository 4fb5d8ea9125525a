"""Bytes that a GPU's allocator would hand out for a call, worked out without a GPU.

Under `FakeTensorMode` the modules of full-size models run on the device ``cuda`` with shapes only.
A dispatch mode sees every storage come and a finaliser sees it go, so that the sum of what is
alive, each storage rounded up to 512 B as PyTorch's caching allocator does, is what
``torch.cuda.max_memory_allocated`` counts, but for what no operator returns: workspaces of cuBLAS
and of attention kernels, and remainders under 1 MiB that the allocator does not split off.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Held", "Tracker", "fake_gpu", "place"]

BLOCK_BYTES = 512
"""Unit of PyTorch's caching allocator (``kMinBlockSize`` of c10/cuda/CUDACachingAllocator)."""


@dataclass(frozen=True)
class Held:
    """A storage that was alive at the peak: what made it, its shape then, its size [B]."""

    op: str
    shape: tuple[int, ...]
    size_bytes: int


class Tracker(TorchDispatchMode):  # type: ignore[misc]
    """Adds up the storages on one kind of device that come and go while it is entered.

    Parameters
    ----------
    device : str
        Type of device whose storages count.

    Attributes
    ----------
    current_bytes, peak_bytes : int
        Alive now, and at most since `restart` [B].
    at_peak : tuple of Held
        What was alive at the peak, in the order in which it was made.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device
        self.current_bytes = self.peak_bytes = 0
        self.at_peak: tuple[Held, ...] = ()
        self._alive: dict[int, Held] = {}
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._made = 0

    def restart(self) -> None:
        """Begin a new peak, at what is alive now."""
        self.peak_bytes, self.at_peak = self.current_bytes, tuple(self._alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {part.untyped_storage()._cdata for part in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for part in _tensors(result):
            # Views share the storage of what they look at, weights among them.
            if part.device.type == self.device and part.untyped_storage()._cdata not in given:
                self._add(part, str(func))
        return result

    def _add(self, tensor: torch.Tensor, op: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        self._made += 1
        self._alive[self._made] = Held(op, tuple(tensor.shape), size)
        self.current_bytes += size
        weakref.finalize(storage, self._drop, self._made)
        if self.current_bytes > self.peak_bytes:
            self.restart()

    def _drop(self, number: int) -> None:
        self.current_bytes -= self._alive.pop(number).size_bytes


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class _AsOnAGpu(TorchFunctionMode):  # type: ignore[misc]
    """Calls the kernels that torch takes on a GPU, where it looks whether there is one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced = _REPLACED.get(func, func)
        return replaced(*args, **(kwargs or {}))


def _attend(
    query: Any, keys: Any, values: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Flash attention, which takes grouped heads; with a mask the memory-efficient kernel."""
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(
            query, keys, values, dropout_p, is_causal, scale=scale
        )[0]
    if enable_gqa:
        raise NotImplementedError("grouped heads with a mask run unfused on a GPU")
    bias = attn_mask.expand(*query.shape[:3], keys.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, keys, values, bias, False, dropout_p, is_causal, scale=scale
    )[0]


def _index(tensor: Any, key: Any) -> Any:
    """Index with numbers, slices, None, Ellipsis and tensors."""
    keys = list(key) if isinstance(key, tuple) else [key]
    skipped = tensor.ndim - sum(1 for part in keys if part is not None and part is not Ellipsis)
    dim, tensors = 0, {}
    for part in keys:
        if part is Ellipsis:
            dim += skipped
        elif part is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(part, torch.Tensor):
            tensors[dim], dim = part, dim + 1
        elif isinstance(part, slice):
            if part != slice(None):
                tensor = torch.ops.aten.slice(tensor, dim, part.start, part.stop, part.step or 1)
            dim += 1
        else:
            tensor = tensor.select(dim, part)
    if not tensors:
        return tensor
    return torch.ops.aten.index(tensor, [tensors.get(at) for at in range(max(tensors) + 1)])


def _set(tensor: Any, key: Any, value: Any) -> None:
    put = torch.ops.aten.copy_ if isinstance(value, torch.Tensor) else torch.ops.aten.fill_
    put(_index(tensor, key), value)


def _contiguous(tensor: Any) -> Any:
    made = torch.contiguous_format
    return tensor if tensor.is_contiguous() else tensor.clone(memory_format=made)


_REPLACED: dict[Any, Any] = {
    torch.nn.functional.scaled_dot_product_attention: _attend,
    # torch's own methods ask for the driver of a GPU.
    torch.Tensor.__getitem__: _index,
    torch.Tensor.__setitem__: _set,
    torch.Tensor.copy_: torch.ops.aten.copy_,
    torch.Tensor.contiguous: _contiguous,
}


@contextmanager
def fake_gpu() -> Generator[Tracker, None, None]:
    """Enter everything that lets modules run on a GPU that is not there.

    Yields
    ------
    Tracker
        Counts what is made inside.
    """
    tracker = Tracker()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), _AsOnAGpu(), tracker:
        yield tracker


def place(model: torch.nn.Module, dtype: torch.dtype | None = None) -> None:
    """Put a module that was made on the meta device on the GPU that is not there.

    Parameters
    ----------
    model : Module
        Its parameters and buffers are replaced.
    dtype : dtype, optional
        Format of the parameters, if not the one that they have.
    """
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=dtype or old.dtype, device="cuda")
                module._parameters[name] = torch.nn.Parameter(new, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device="cuda")
