"""Count what a call does: operators that launch work, waits of the host, and FLOPs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Calls", "count_calls", "count_flops"]

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
        Operators among them whose result the host must read before it can go on: scalars, and
        outputs whose size depends on values (boolean indices).  Copies to the host are not seen
        when all runs on the CPU.
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
            self.waits += name in _WAITS or (name == "aten::index" and _boolean(args[1]))
        return func(*args, **(kwargs or {}))


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
