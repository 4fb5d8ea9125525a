"""Collectives of tensor parallelism."""

from __future__ import annotations

from typing import Literal

from sympy import Expr, Integer

from costmodel.ops.op import ONE, ZERO, Op, Stage, Traffic
from costmodel.symbols import sym

__all__ = ["collective"]


def collective(
    name: str,
    stage: Stage,
    *,
    op: Literal["all_reduce", "all_gather"],
    rows: Expr,
    cols: Expr,
    repeat: Expr = ONE,
    held: Expr = ZERO,
) -> Op:
    r"""All-reduce or all-gather of ``rows x cols`` activations over N devices.

    A ring sends :math:`2(N-1)/N` (all-reduce) or :math:`(N-1)/N` (all-gather)
    of the message over each device's link [1]_.

    Parameters
    ----------
    name, stage, repeat, held
        As in `costmodel.ops.gemm.gemm`.
    op : {"all_reduce", "all_gather"}
        Which one.
    rows, cols : Expr
        Size of the whole message.

    Returns
    -------
    Op
        ``shape`` holds ``bytes`` (message), ``link_bytes`` (sent per device) and
        ``devices``.

    References
    ----------
    .. [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective
       Communication Operations in MPICH", 2005, section 4.
    """
    devices = sym("N")
    message = rows * cols * sym("ba")
    factor = Integer(2 if op == "all_reduce" else 1)
    return Op(
        name=name,
        stage=stage,
        kind="collective",
        shape=(
            ("bytes", message),
            ("link_bytes", factor * (devices - 1) / devices * message),
            ("devices", devices),
        ),
        flops=rows * cols * (devices - 1) / devices if op == "all_reduce" else ZERO,
        traffic=Traffic(act_in=message, act_out=message),
        repeat=repeat,
        live=message + held,
        note=op,
    )
