"""Dropped tokens recycled: density-peak clustering with its N x N x d difference."""

from __future__ import annotations

from sympy import Integer, Symbol

from costmodel.ops import Op, Stage, copy, elementwise
from costmodel.symbols import indexed, sym

__all__ = ["recycle", "recycled"]

_STAGE: Stage = "compression"
_INDEX_BYTES = Integer(8)
_SHARE = 0.3
_PER_CLUSTER = 10


def recycled(dropped: int) -> tuple[int, int]:
    """Return how many of the dropped tokens are recycled, and into how many clusters.

    Examples
    --------
    >>> recycled(276), recycled(0)
    ((83, 9), (0, 0))
    """
    if dropped == 0:
        return 0, 0
    points = int(dropped * _SHARE) + 1
    return points, points // _PER_CLUSTER + 1


def recycle(
    label: str, index: int, stages: int, points: int, clusters: int
) -> tuple[list[Op], dict[Symbol, float]]:
    r"""Return the operators that cluster `points` tokens of each request, and their sizes.

    ``cluster_and_merge`` of the public code: distances are the norm of a difference that is
    written out for every pair (3 N^2 d FLOP, none in a matrix product), density over the
    nearest, distance to the nearest denser token, and a weighted sum per cluster.

    .. math:: \mathrm{live} = N^2 d\,\beta_a

    Parameters
    ----------
    label : str
        Prefix of operator names.
    index, stages : int
        Which stage of how many.
    points, clusters : int
        Tokens recycled and what they become.

    Returns
    -------
    list of Op, dict of Symbol to float

    References
    ----------
    .. [1] W. Zeng et al., "Not All Tokens Are Equal", CVPR 2022, arXiv:2204.08680 (clustering).
    """
    b, d, ba = sym("b"), sym("d"), sym("ba")
    N, C = indexed("vr", index, stages), indexed("vc", index, stages)
    ops = [
        copy(f"{label}.recycled", _STAGE, rows=N, cols=d, passes=Integer(2), launches=Integer(4),
             repeat=b, gather=True, note="dropped tokens and the best of them"),
        elementwise(f"{label}.distances", _STAGE, rows=N**2, cols=d, read=ba, write=ba,
                    flops_per_element=Integer(3), launches=Integer(2), repeat=b, live=ba,
                    note="difference of every pair, then its norm"),
        elementwise(f"{label}.cluster", _STAGE, rows=N, cols=N, read=10 * ba + _INDEX_BYTES,
                    write=8 * ba, flops_per_element=Integer(10), launches=Integer(36), repeat=b,
                    primitive="reduction", note="density, nearest denser token, centres"),
        elementwise(f"{label}.merge", _STAGE, rows=N + C, cols=d, read=2 * ba, write=ba,
                    flops_per_element=Integer(2), launches=Integer(4), repeat=b,
                    primitive="reduction", note="weighted sum of each cluster"),
    ]  # fmt: skip
    return ops, {N: float(points), C: float(clusters)}
