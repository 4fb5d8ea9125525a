"""k-means++ seeding and Lloyd iterations as operators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sympy import Expr, Integer, Min, Rational

from costmodel.ops.elementwise import elementwise
from costmodel.ops.gemm import matmul
from costmodel.ops.op import ONE, ZERO, Op, Primitive, Traffic
from costmodel.symbols import sym

__all__ = ["KMeansImpl", "KMeansProblem", "kmeans"]

KMeansImpl = Literal["eager", "fused", "compiled", "sklearn"]
"""``eager``: a Python loop of torch kernels per image; ``fused``: the same kernels on all
images and restarts at once, without host syncs; ``compiled``: that with each step compiled into
one kernel beside its product; ``sklearn``: on the CPU."""

# Steps that are no chains of elementwise kernels.
_PRIMITIVES: dict[str, Primitive] = {
    "norms": "reduction",
    "widen": "copy",
    "centre_norms": "reduction",
    "assign_argmin": "argmin",
    "tolerance": "reduction",
    "update_sum": "scatter",
    "stack": "copy",
}
_WIDE_BYTES = Integer(4)
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


@dataclass(frozen=True)
class _Step:
    """A step beside the distance products: bytes per element, and kernels of plain torch.

    `live` are the bytes per element that exist beside the points, if not all of one kernel's.
    """

    part: str
    rows: Expr
    cols: Expr
    torch: tuple[Expr, Expr]
    lean: tuple[Expr, Expr]
    flops: int
    kernels: Expr
    repeat: Expr
    live: Expr | None = None


def kmeans(problem: KMeansProblem, impl: KMeansImpl, check: bool, casts: bool = True) -> list[Op]:
    r"""Operators of k-means with k-means++ seeding.

    .. math:: F = 2 m c\, R\,[1 + J(k-1)] + 2 m k c\, I R

    per problem, counting the distance products; norms, minima, sums and
    means are listed beside them.  Kernels of the plain torch form, per problem:

    .. math:: n = 3 + q + R\,[11 + (k-1)(11 + 4\,[J > 1]) + I (12 + q)] + 5\,[R > 1]

    with q = 1 where points are cast to fp32, 2 more for the whole batch, 3 and a host sync for
    the tolerance of a convergence test and 2 and a host sync for each test; the fused form has one
    more in every iteration.  As counted on the runnable implementation.

    Parameters
    ----------
    problem : KMeansProblem
        Sizes.
    impl : {"eager", "fused", "compiled", "sklearn"}
        Implementation.
    check : bool
        Whether each iteration tests convergence on the host.
    casts : bool
        Whether points are of a narrower format than fp32, which sums are in.

    Returns
    -------
    list of Op

    References
    ----------
    .. [1] D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful
       Seeding", SODA 2007.
    .. [2] S. Lloyd, "Least squares quantization in PCM", 1982.
    """
    points, width = problem.points, problem.width
    batched = impl in ("fused", "compiled")
    # Restarts of a batched form run side by side.
    batch = problem.count * problem.restarts if batched else ONE
    restarts = ONE if batched else problem.restarts
    loops = ONE if batched else problem.count
    plain = impl in ("eager", "fused")
    # The points of all images stay; what a loop handles at a time is widened.
    own = batch * points * width * sym("ba")
    held = problem.count * points * width * sym("ba")
    held += batch * points * width * _WIDE_BYTES if casts and plain else ZERO

    def distances(part: str, targets: Expr, repeat: Expr) -> Op:
        op = matmul(
            f"{problem.label}.{part}", "compression", batch=batch, m=points, n=targets,
            k=width, a_bytes=batch * points * width * sym("ba"),
            b_bytes=batch * targets * width * sym("ba"), repeat=repeat * loops,
        )  # fmt: skip
        return replace(op, live=op.live - own + held + batch * points * targets * _WIDE_BYTES)

    def step(item: _Step) -> Op:
        read, write = item.torch if plain else item.lean
        return elementwise(
            f"{problem.label}.{item.part}", "compression", rows=batch * item.rows, cols=item.cols,
            read=read, write=write, flops_per_element=Integer(item.flops),
            launches=item.kernels if plain else ONE, repeat=item.repeat * loops, live=item.live,
            held=held, primitive=_PRIMITIVES.get(item.part, "other"),
        )  # fmt: skip

    seeds, rounds = restarts * (problem.centres - 1), restarts * problem.iterations
    before, seeding, iteration, after = _steps(problem, restarts, loops, casts, impl)
    ops = [
        *map(step, before if plain else before[:1]),
        distances("init_first", ONE, restarts),
        distances("init_distance", problem.trials, seeds),
        *map(step, seeding),
        distances("assign_distance", problem.centres, rounds),
        *map(step, iteration),
    ]
    if check and impl != "sklearn":
        ops += [
            replace(step(item), host_syncs=ONE, launches=item.kernels)
            for item in _tests(problem, rounds)
        ]
    ops += map(step, after if plain else ())
    if impl == "sklearn":
        return _on_host(problem, ops)
    captured = batched and not check
    return [replace(op, graph_safe=captured) for op in ops]


def _steps(
    problem: KMeansProblem, restarts: Expr, loops: Expr, casts: bool, impl: KMeansImpl
) -> tuple[list[_Step], list[_Step], list[_Step], list[_Step]]:
    """Steps before seeding, of seeding, of an iteration, and after."""
    m, k, c = problem.points, problem.centres, problem.width
    ba, wide = sym("ba"), _WIDE_BYTES
    seeds, rounds = restarts * (k - 1), restarts * problem.iterations
    cast, numbering = (ONE if flag else ZERO for flag in (casts, impl == "fused"))
    plain = impl in ("eager", "fused")
    several = Min(ONE, problem.trials - 1)
    norm = (ba, wide / c)
    before = [_Step("norms", m, c, norm, norm, 2, Integer(3), ONE, wide / c)]
    if casts:
        before.append(_Step("widen", m, c, (ba, wide), (ba, wide), 0, ONE, ONE, ZERO))
    seeding = [
        # draw and gather of the first centre, its distances, gather of all centres
        _Step("init_start", m, ONE, (5 * wide, 4 * wide), (wide, wide), 4, Integer(10), restarts),
        # cumulative sum, draw, gather; subtract, add, clamp, exclude, running minimum
        _Step("init_select", m, problem.trials, (7 * wide, 5 * wide), (3 * wide, 2 * wide), 5,
              10 + 4 * several, seeds),
        _Step("centre_norms", k, c, norm, norm, 2, Integer(2), rounds),
    ]  # fmt: skip
    subtract = _Step("assign_subtract", m, k, (ba, wide), (ZERO, ZERO), 2, ONE, rounds)
    iteration = [
        *([subtract] if plain else []),
        _Step("assign_argmin", m, k, (wide, (wide + _INDEX_BYTES) / k), (wide, _INDEX_BYTES / k),
              1 if plain else 3, ONE, rounds),
        # clear and add up sums and counts; in a batch, rows of all problems are numbered
        _Step("update_sum", m, c, (wide + 2 * _INDEX_BYTES / c, 2 * wide * k / m),
              (ba + _INDEX_BYTES / c, ba * k / m), 1, 4 + numbering, rounds, (wide + ba) * k / m),
        # non-empty, divide, choose and, from fp32, cast: sums, quotients, means and old centres
        _Step("update_mean", k, c, (2 * wide + ba + cast * wide, 2 * wide + cast * ba), (ba, ba),
              1, 3 + cast, rounds, 3 * wide + ba if plain else 2 * ba),
    ]  # fmt: skip
    chosen = Min(ONE, problem.restarts - 1)
    after = [
        _Step("best_restart", k, c, (ba, ba), (ba, ba), 0, Integer(5), chosen),
        # of the whole batch
        _Step("stack", k, c, (ba, ba), (ba, ba), 0, 2 / loops, ONE),
    ]
    return before, seeding, iteration, after


def _tests(problem: KMeansProblem, rounds: Expr) -> list[_Step]:
    """The tolerance, from the variance of the points, and a test in every iteration."""
    # the mean, differences from it and their norm
    variance, moved = (3 * _WIDE_BYTES, _WIDE_BYTES), (2 * sym("ba"), ZERO)
    m, k, c = problem.points, problem.centres, problem.width
    return [
        _Step("tolerance", m, c, variance, variance, 4, Integer(3), ONE),
        _Step("check", k, c, moved, moved, 3, Integer(2), rounds),
    ]


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
            # scikit-learn's k-means++ is a Python loop over centres.
            shape=(("link_bytes", ZERO), ("calls", ONE if "init_distance" in op.name else ZERO)),
        )
        for op in ops
    ]  # fmt: skip

    def transfer(part: str, rows: Expr) -> Op:
        size = rows * width * ba
        return Op(
            name=f"{problem.label}.{part}", stage="compression", kind="host",
            shape=(("link_bytes", size), ("calls", ZERO)), flops=ZERO, traffic=Traffic(act_in=size),
            repeat=problem.count, host_syncs=Rational(1), live=size,
            note="copy over the host link",
        )  # fmt: skip

    return [transfer("to_host", points), *host, transfer("to_device", centres)]
