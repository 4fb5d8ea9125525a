"""k-means++ seeding and Lloyd iterations as operators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sympy import Expr, Integer, Rational

from costmodel.ops.elementwise import elementwise
from costmodel.ops.gemm import matmul
from costmodel.ops.op import ONE, ZERO, Op, Traffic
from costmodel.symbols import sym

__all__ = ["KMeansImpl", "KMeansProblem", "kmeans"]

KMeansImpl = Literal["eager", "fused", "sklearn"]
"""``eager``: a Python loop of torch kernels per image; ``fused``: all images in
one batch, few kernels, no host sync; ``sklearn``: on the CPU."""

_DISTANCE_BYTES = Integer(4)
_INDEX_BYTES = Integer(8)


@dataclass(frozen=True)
class KMeansProblem:
    """One clustering problem, `count` times per forward pass.

    Attributes
    ----------
    label : str
        Prefix of operator names.
    count : Expr
        Independent problems (images of all requests).
    points, centres, width : Expr
        Vectors, clusters and their width.
    iterations, restarts, trials : Expr
        Lloyd iterations run, n_init, and candidates per k-means++ centre.
    """

    label: str
    count: Expr
    points: Expr
    centres: Expr
    width: Expr
    iterations: Expr
    restarts: Expr
    trials: Expr


def kmeans(problem: KMeansProblem, impl: KMeansImpl, check: bool) -> list[Op]:
    r"""Operators of k-means with k-means++ seeding.

    .. math:: F = 2 m c\, R\,[1 + J(k-1)] + 2 m k c\, I R

    per problem, counting the distance products; norms, minima, sums and
    means are listed beside them.  Launches of the eager form: five per
    k-means++ centre, eight per Lloyd iteration and two more and one host sync
    where convergence is tested.

    Parameters
    ----------
    problem : KMeansProblem
        Sizes.
    impl : {"eager", "fused", "sklearn"}
        Implementation.
    check : bool
        Whether each iteration tests convergence on the host.

    Returns
    -------
    list of Op

    References
    ----------
    .. [1] D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful
       Seeding", SODA 2007.
    .. [2] S. Lloyd, "Least squares quantization in PCM", 1982.
    """
    points, centres, width = problem.points, problem.centres, problem.width
    seeds = problem.restarts * (centres - 1)
    rounds = problem.restarts * problem.iterations
    eager = impl == "eager"
    fused_batch = problem.count if impl == "fused" else ONE
    loops = ONE if impl == "fused" else problem.count
    held = fused_batch * points * width * sym("ba")

    def launches(kernels: int) -> Expr:
        return Integer(kernels if eager else 1)

    def distances(part: str, targets: Expr, repeat: Expr) -> Op:
        op = matmul(
            f"{problem.label}.{part}", "compression", batch=fused_batch, m=points, n=targets,
            k=width, a_bytes=fused_batch * points * width * sym("ba"),
            b_bytes=fused_batch * targets * width * sym("ba"), repeat=repeat * loops,
        )  # fmt: skip
        out = fused_batch * points * targets * _DISTANCE_BYTES
        return replace(
            op, traffic=replace(op.traffic, act_out=out), live=op.traffic.act_in + out
        )  # fmt: skip

    def step(
        part: str, rows: Expr, cols: Expr, *, read: Expr, write: Expr, flops: int, kernels: int,
        repeat: Expr, syncs: Expr = ZERO,
    ) -> Op:  # fmt: skip
        op = elementwise(
            f"{problem.label}.{part}", "compression", rows=fused_batch * rows, cols=cols,
            read=read, write=write, flops_per_element=Integer(flops), launches=launches(kernels),
            repeat=repeat * loops, held=held, primitive="reduction",
        )  # fmt: skip
        return replace(op, host_syncs=syncs)

    ba = sym("ba")
    one_sum = _DISTANCE_BYTES / width
    ops = [
        step("norms", points, width, read=ba, write=one_sum, flops=2, kernels=2,
             repeat=ONE),
        distances("init_first", ONE, problem.restarts),
        distances("init_distance", problem.trials, seeds),
        # running minimum, cumulative sum, sampling, gather of the candidates
        step("init_select", points, problem.trials, read=3 * _DISTANCE_BYTES,
             write=2 * _DISTANCE_BYTES, flops=3, kernels=4, repeat=seeds),
        step("centre_norms", centres, width, read=ba, write=one_sum, flops=2, kernels=2,
             repeat=rounds),
        distances("assign_distance", centres, rounds),
        step("assign_argmin", points, centres, read=_DISTANCE_BYTES,
             write=_INDEX_BYTES / centres, flops=3, kernels=1, repeat=rounds),
        # clear, scatter-add, count
        step("update_sum", points, width, read=ba + _INDEX_BYTES / width,
             write=ba * centres / points, flops=1, kernels=3, repeat=rounds),
        step("update_mean", centres, width, read=ba, write=ba, flops=1, kernels=1,
             repeat=rounds),
    ]  # fmt: skip
    if check and impl != "sklearn":
        ops.append(
            step("check", centres, width, read=2 * ba, write=ZERO, flops=3, kernels=2,
                 repeat=rounds, syncs=ONE)
        )  # fmt: skip
    ops.append(
        step("aggregate", points, width, read=ba + _INDEX_BYTES / width,
             write=2 * ba * centres / points, flops=1, kernels=3, repeat=ONE)
    )  # fmt: skip
    if impl == "sklearn":
        return _on_host(problem, ops)
    captured = impl == "fused" and not check
    return [replace(op, graph_safe=captured) for op in ops]


def _on_host(problem: KMeansProblem, ops: list[Op]) -> list[Op]:
    points, centres, width, ba = problem.points, problem.centres, problem.width, sym("ba")

    def in_fp32(size: Expr) -> Expr:
        # scikit-learn computes in fp32; activations of other formats are cast on the host.
        return size.subs(ba, Integer(4))

    host = [
        replace(
            op, kind="host", launches=ZERO, live=ZERO,
            traffic=Traffic(
                act_in=in_fp32(op.traffic.act_in), act_out=in_fp32(op.traffic.act_out)
            ),
            shape=(("link_bytes", ZERO),),
        )
        for op in ops
    ]  # fmt: skip

    def transfer(part: str, rows: Expr) -> Op:
        size = rows * width * ba
        return Op(
            name=f"{problem.label}.{part}", stage="compression", kind="host",
            shape=(("link_bytes", size),), flops=ZERO, traffic=Traffic(act_in=size),
            repeat=problem.count, host_syncs=Rational(1), live=size,
            note="copy over the host link",
        )  # fmt: skip

    return [transfer("to_host", points), *host, transfer("to_device", centres)]
