"""Random inputs, more of them than the last-level cache holds."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["DTYPES", "Inputs", "Pool", "Rotation", "torch_dtype"]

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Number formats by tidy name, and what torch calls them."""

_CHUNK_BYTES = 64 << 20
_ALIGN_BYTES = 512
# Just under glibc's DEFAULT_MMAP_THRESHOLD_MAX (malloc.c), 32 MiB where a long has 8 bytes.
_KEPT_BYTES = 31 << 20
_MAX_SETS = 2048
_TIMES_CACHE = 2


def torch_dtype(name: str) -> Any:
    """Return torch's number format of a tidy name."""
    import torch

    return getattr(torch, DTYPES[name])


class Pool:
    """Device memory filled once, from which every case takes what it needs.

    Making hundreds of megabytes of random numbers for each case would take longer than
    timing it.

    Parameters
    ----------
    device : str
        Where the memory is.
    seed : int
        Of the random numbers.
    """

    def __init__(self, device: str, seed: int = 0) -> None:
        self.device = device
        self._seed = seed
        self._chunks: dict[tuple[str, str], list[Any]] = {}
        self._places: dict[tuple[str, str], tuple[int, int]] = {}

        if device == "cpu":
            _settle_allocator()

    def rewind(self) -> None:
        """Give everything back, for the next case."""
        self._places.clear()

    def clear(self) -> None:
        """Free the memory."""
        self.rewind()
        self._chunks.clear()

    def take(self, elements: int, dtype: str, filled: str) -> Any:
        """Return a part that nobody has taken since the last `rewind`.

        Parameters
        ----------
        elements : int
            Its length.
        dtype : str
            Tidy name of the format.
        filled : {"normal", "scratch"}
            Standard normal numbers that must not be written to, or memory for outputs.

        Returns
        -------
        torch.Tensor
            One-dimensional.
        """
        key = (filled, dtype)
        chunks = self._chunks.setdefault(key, [])
        index, offset = self._places.get(key, (0, 0))
        while index < len(chunks) and offset + elements > len(chunks[index]):
            index, offset = index + 1, 0
        if index == len(chunks):
            chunks.append(self._fill(elements, dtype, filled, index))
        size = torch_dtype(dtype).itemsize
        step = _ALIGN_BYTES // size
        self._places[key] = (index, offset + math.ceil(elements / step) * step)
        return chunks[index][offset : offset + elements]

    def _fill(self, elements: int, dtype: str, filled: str, index: int) -> Any:
        import torch

        length = max(elements, _CHUNK_BYTES // torch_dtype(dtype).itemsize)
        where = {"device": self.device, "dtype": torch_dtype(dtype)}
        if filled == "scratch":
            # Written once, so that no page is touched for the first time while a clock runs.
            return torch.ones(length, **where)
        generator = torch.Generator(self.device).manual_seed(self._seed + index)
        return torch.randn(length, generator=generator, **where)


def _settle_allocator() -> None:
    """Free one large block, as every model does sooner or later.

    glibc's malloc gives blocks back to the system until it has seen a larger one freed; a result
    would then cost page faults or not by what was measured before it.
    """
    import torch

    torch.empty(_KEPT_BYTES, dtype=torch.uint8)


class Rotation:
    """How many input sets there should be.

    Parameters
    ----------
    cache_bytes : int
        Last-level cache of the device [B].
    cap_bytes : int
        Memory that all sets together may take [B].
    """

    def __init__(self, cache_bytes: int, cap_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        self.cap_bytes = cap_bytes

    def sets(self, set_bytes: int) -> int:
        """Return the number of sets.

        Twice the cache and one set more, so that no set is still cached when it comes round
        again; fewer where memory or patience end.

        Examples
        --------
        >>> Rotation(100, 10**6).sets(10), Rotation(100, 50).sets(10), Rotation(100, 50).sets(80)
        (21, 5, 1)
        """
        wanted = math.ceil(_TIMES_CACHE * self.cache_bytes / max(set_bytes, 1)) + 1
        return max(1, min(wanted, _MAX_SETS, self.cap_bytes // max(set_bytes, 1)))

    def exceeds_cache(self, total_bytes: int) -> bool:
        """Whether sets of that size together come from memory, not from the cache."""
        return total_bytes > _TIMES_CACHE * self.cache_bytes


class Inputs:
    """Makes the inputs of one case.

    Parameters
    ----------
    pool : Pool
        Where they come from.
    dtype : str
        Tidy name of the number format.
    rotation : Rotation
        How many sets there should be.

    Attributes
    ----------
    device : str
        Where tensors are.
    dtype : str
        Tidy name of their format.
    taken_bytes : int
        Size of all tensors made so far [B].
    """

    def __init__(self, pool: Pool, dtype: str, rotation: Rotation) -> None:
        pool.rewind()
        self._pool = pool
        self._rotation = rotation
        self.device = pool.device
        self.dtype = dtype
        self.taken_bytes = 0

    @property
    def torch_dtype(self) -> Any:
        """Torch's name of the format."""
        return torch_dtype(self.dtype)

    def sets_for(self, set_bytes: int) -> int:
        """Return how many sets of a size there should be."""
        return self._rotation.sets(set_bytes)

    def normal(self, *shape: int) -> Any:
        """Return standard normal numbers that must not be written to."""
        return self._take(shape, "normal")

    def scratch(self, *shape: int) -> Any:
        """Return memory for an output."""
        return self._take(shape, "scratch")

    def below(self, high: int, *shape: int) -> Any:
        """Return uniform 64-bit integers from 0 to below `high`."""
        import torch

        made = torch.randint(high, shape, device=self.device)
        self.taken_bytes += made.numel() * 8
        return made

    def _take(self, shape: tuple[int, ...], filled: str) -> Any:
        taken = self._pool.take(math.prod(shape), self.dtype, filled)
        self.taken_bytes += math.prod(shape) * self.torch_dtype.itemsize
        return taken.view(shape)
