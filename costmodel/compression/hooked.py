"""Attention of vision layers computed a second time, from queries and keys that hooks kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sympy import Expr, Integer

from costmodel.compression.plan import TowerGroup
from costmodel.compression.tower import TowerSequence
from costmodel.ops import Op, copy, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["again", "hook_groups", "hooked_bytes"]


def hooked_bytes(item: TowerSequence) -> Expr:
    r"""Bytes of the queries and keys of one layer [B].

    .. math:: 2 b t n d_v \beta_a
    """
    return 2 * item.batch * item.length * sym("dv") * sym("ba")


def hook_groups(
    item: TowerSequence, hooked: Sequence[int], executed: int
) -> tuple[TowerGroup, ...]:
    """Return tower groups that hold queries and keys of the `hooked` layers behind them.

    Parameters
    ----------
    item : TowerSequence
        The tower's only shape of sequence.
    hooked : sequence of int
        Layers with hooks, from 0, ascending.
    executed : int
        Layers that run.

    Returns
    -------
    tuple of TowerGroup
        Attention stays as the deployment has it: projections are hooked, not weights.
    """
    bounds = (0, *(layer + 1 for layer in hooked), executed)
    one = hooked_bytes(item)
    groups = [
        TowerGroup(last - first, held=one * kept if kept else None)
        for kept, (first, last) in enumerate(pairwise(bounds))
    ]
    return tuple(group for group in groups if group.layers)


def again(item: TowerSequence, name: str, held: Expr) -> list[Op]:
    r"""Queries times keys, scaled, softmax: all rows, although one is read.

    .. math:: F = 2 b t H_v n^2 D_v

    Heads lie behind tokens in what the hooks kept, so that a product over several sequences
    copies both first; of a single one it does not.

    Parameters
    ----------
    item : TowerSequence
        The sequences.
    name : str
        Which layer, for the operators' names.
    held : Expr
        Bytes live meanwhile [B].
    """
    ba, heads = sym("ba"), item.batch * sym("Hv")
    states = hooked_bytes(item) / 2
    ops = [
        matmul(
            f"{item.label}.{name}_scores", "compression", batch=heads, m=item.length,
            n=item.length, k=sym("Dv"), a_bytes=states, b_bytes=states, held=held,
        ),
        elementwise(
            f"{item.label}.{name}_softmax", "compression", rows=heads * item.length,
            cols=item.length, read=2 * ba, write=2 * ba, flops_per_element=Integer(5),
            launches=Integer(2), live=2 * ba, held=held, primitive="softmax",
            note="scale and softmax",
        ),
    ]  # fmt: skip
    if item.number == 1:
        return ops
    split = copy(
        f"{item.label}.{name}_heads", "compression", rows=2 * item.batch * item.length,
        cols=sym("dv"), launches=Integer(2), held=held, note="queries and keys by head",
    )  # fmt: skip
    return [split, *ops]
