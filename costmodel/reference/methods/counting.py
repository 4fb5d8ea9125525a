"""Count what a call does: operators that launch work, waits of the host, and FLOPs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Calls", "count_calls", "count_flops", "waits_of"]

_NO_WORK = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view")
)
_WAITS = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"})


@dataclass(frozen=True)
class Calls:
    """What one call sent to the device.

    Attributes
    ----------
    operators : dict of str to int
        Operators that compute or copy, by name; views and bare allocations are left out.
    launches : int
        Their number.  An operator is at least one kernel; a sort or a long top-k is several.
    waits : int
        Times that the host of a GPU would wait within them: see `waits_of`.  Copies to the host
        are not seen when all runs on the CPU.
    """

    operators: dict[str, int]
    launches: int
    waits: int


class _Counter(TorchDispatchMode):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        if not (func.is_view or name in _NO_WORK):
            self.seen[name] += 1
            self.waits += waits_of(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def waits_of(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return how often the host waits for a GPU within one operator of torch.

    It reads scalars, and the sizes of outputs whose size depends on values: what a boolean index
    selects, and unique values.  ``isin`` looks for the unique ones of both its arguments once
    the second has ``10 n**0.145`` elements, for n in the first, unless it is told that there are
    no others [1].

    References
    ----------
    .. [1] https://github.com/pytorch/pytorch, ``aten/src/ATen/native/TensorCompare.cpp``
       (``isin_sorting``) and ``aten/src/ATen/native/cuda/UniqueCub.cu`` (``compute_unique``).
    """
    name = operator._schema.name
    if operator == torch.ops.aten.isin.Tensor_Tensor:
        elements, among = args[:2]
        sorts = among.numel() >= int(10 * elements.numel() ** 0.145)
        return 2 * (sorts and not kwargs.get("assume_unique", False))
    return int(name in _WAITS or (name == "aten::index" and _boolean(args[1])))


def _boolean(indices: Iterable[Tensor | None]) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


def count_calls(run: Callable[[], Any]) -> Calls:
    """Count the operators of one call.

    Examples
    --------
    >>> made = torch.arange(6.0)
    >>> count_calls(lambda: made.view(2, 3).exp().sum()).operators
    {'aten::exp': 1, 'aten::sum': 1}
    >>> count_calls(lambda: made[made > 2].sum().item()).waits
    2
    """
    counter = _Counter()
    with torch.no_grad(), counter:
        run()
    return Calls(dict(counter.seen), counter.seen.total(), counter.waits)


def count_flops(run: Callable[[], Any]) -> int:
    """Count FLOPs of matrix products and convolutions of one call, 2 per multiply-add.

    A fused attention kernel of the CPU counts nothing.

    Examples
    --------
    >>> count_flops(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    60
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        run()
    return int(counter.get_total_flops())
