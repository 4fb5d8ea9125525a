"""k-means++ and Lloyd against counts made by hand and by running the algorithm's loops."""

from __future__ import annotations

from typing import get_args

import pytest
from sympy import Expr

from costmodel.ops import Op, exact
from costmodel.ops.kmeans import KMeansImpl, KMeansProblem, kmeans
from costmodel.symbols import sym

PROBLEM = KMeansProblem(
    "km", sym("u"), sym("m"), sym("k"), sym("c"), sym("I"), sym("R"), sym("J")
)  # fmt: skip
# LLaVA-1.5: 576 tokens of width 4096 to 64 clusters.
LLAVA = {"u": 1, "m": 576, "k": 64, "c": 4096, "I": 10, "R": 1, "J": 1, "ba": 2}


def at(expression: Expr, **changed: int) -> int:
    values = LLAVA | changed
    return exact(expression, {sym(name): value for name, value in values.items()})


def build(impl: KMeansImpl = "eager", check: bool = False) -> dict[str, Op]:
    return {op.name.removeprefix("km."): op for op in kmeans(PROBLEM, impl, check)}


def total(ops: dict[str, Op], attribute: str, **changed: int) -> int:
    return sum(at(getattr(op, attribute) * op.repeat, **changed) for op in ops.values())


def test_published_flops_of_one_lloyd_iteration_and_of_the_seeding() -> None:
    # Cluster & Aggregate on LLaVA-1.5, arithmetic of the method for n=576, k=64, d=4096
    # (arXiv:2504.17892 gives the method): 2 n k d = 0.302 GFLOP per iteration and as much to seed.
    ops = build()
    iteration = at(ops["assign_distance"].flops)
    assert iteration == 2 * 576 * 64 * 4096 == 301_989_888
    seeding = sum(
        at(ops[name].flops * ops[name].repeat) for name in ("init_first", "init_distance")
    )
    assert seeding == 2 * 576 * 4096 * (1 + 63) == 301_989_888
    assert round(iteration / 1e9, 3) == round(seeding / 1e9, 3) == 0.302


def distance_flops(m: int, k: int, c: int, iterations: int, restarts: int, trials: int) -> int:
    """Run the loops of k-means++ and Lloyd and count 2 m c per distance to one centre."""
    flops = 0
    for _ in range(restarts):
        flops += 2 * m * c
        for _ in range(k - 1):
            for _ in range(trials):
                flops += 2 * m * c
        for _ in range(iterations):
            for _ in range(k):
                flops += 2 * m * c
    return flops


@pytest.mark.parametrize("impl", get_args(KMeansImpl))
@pytest.mark.parametrize(
    ("k", "iterations", "restarts", "trials"), [(64, 10, 1, 1), (20, 0, 3, 4), (1, 7, 2, 1)]
)
def test_counted_flops_are_the_distances_of_the_loops(
    impl: KMeansImpl, k: int, iterations: int, restarts: int, trials: int
) -> None:
    ops = {name: op for name, op in build(impl).items() if op.matmul}
    values = {"k": k, "I": iterations, "R": restarts, "J": trials, "u": 3}
    expected = 3 * distance_flops(576, k, 4096, iterations, restarts, trials)
    assert total(ops, "flops", **values) == expected


def kernels_of_torch(
    images: int, k: int, iterations: int, restarts: int, trials: int, casts: int, check: bool
) -> int:
    """Kernels that the runnable loop starts: counted by dispatched operators, phase by phase."""
    per_centre = 11 + (4 if trials > 1 else 0)
    restart = 11 + (k - 1) * per_centre + iterations * (12 + casts)
    image = 3 + casts + restarts * restart + (5 if restarts > 1 else 0)
    tests = 3 + 2 * restarts * iterations if check else 0
    return 2 + images * (image + tests)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("restarts", "trials"), [(1, 1), (3, 1), (1, 6), (2, 4)])
@pytest.mark.parametrize("casts", [False, True])
def test_launches_of_the_eager_loop(check: bool, restarts: int, trials: int, casts: bool) -> None:
    ops = {op.name: op for op in kmeans(PROBLEM, "eager", check, casts)}
    for images in (1, 4):
        found = total(ops, "launches", u=images, R=restarts, J=trials)
        assert found == kernels_of_torch(images, 64, 10, restarts, trials, casts, check)
        waits = images * (restarts * 10 + 1) if check else 0
        assert total(ops, "host_syncs", u=images, R=restarts, J=trials) == waits


def test_a_fused_clustering_launches_once_for_all_images_and_restarts() -> None:
    ops = build("fused")
    # Clusters of all problems are numbered through in every iteration.
    once = kernels_of_torch(1, 64, 10, 1, 1, 1, False) + 10
    assert total(ops, "launches") == total(ops, "launches", u=8) == once
    assert total(ops, "launches", R=4) == once + 5
    assert total(ops, "host_syncs") == 0
    # The work itself grows with the images.
    assert total(ops, "flops", u=8) == 8 * total(ops, "flops")


def test_a_compiled_clustering_starts_one_kernel_beside_each_product() -> None:
    ops = build("compiled")
    # Per further centre two kernels, per iteration five, once three.
    assert total(ops, "launches") == total(ops, "launches", u=8) == 2 * 63 + 5 * 10 + 3
    # One kernel subtracts and looks for the least; casts and the like are in none.
    left_out = [build("fused")[name] for name in ("widen", "stack", "best_restart")]
    assert total(ops, "flops") == total(build("fused"), "flops") - sum(
        at(op.flops * op.repeat) for op in left_out
    )


def test_eager_and_fused_do_the_same_work_on_one_image() -> None:
    eager, fused = build("eager"), build("fused")
    assert eager.keys() == fused.keys()
    for name, op in eager.items():
        assert at(op.flops * op.repeat) == at(fused[name].flops * fused[name].repeat)
        assert at(op.traffic.total * op.repeat) == at(
            fused[name].traffic.total * fused[name].repeat
        )


def test_bytes_of_the_assignment() -> None:
    op = build()["assign_distance"]
    # Tokens, centres and their products in fp16.
    assert at(op.traffic.act_in) == 576 * 4096 * 2 + 64 * 4096 * 2
    assert at(op.traffic.act_out) == 576 * 64 * 2
    # Norms less products in fp32; then the least of them, and where.
    subtract, argmin = (build()[f"assign_{part}"] for part in ("subtract", "argmin"))
    assert at(subtract.traffic.act_in) == 576 * 64 * 2
    assert at(subtract.traffic.act_out) == at(argmin.traffic.act_in) == 576 * 64 * 4
    assert at(argmin.traffic.act_out) == 576 * (4 + 8)


def test_bytes_of_the_update() -> None:
    ops = build()
    # Sums are in fp32, of tokens that were cast once; clear and add write them twice.
    assert at(ops["widen"].traffic.total) == 576 * 4096 * (2 + 4)
    assert at(ops["update_sum"].traffic.act_in) == 576 * 4096 * 4 + 2 * 576 * 8
    assert at(ops["update_sum"].traffic.act_out) == 2 * 64 * 4096 * 4
    lean = build("compiled")
    assert at(lean["update_sum"].traffic.total) < at(ops["update_sum"].traffic.total) / 1.8


def test_no_iterations_leave_seeding() -> None:
    busy = {name for name, op in build().items() if at(op.repeat, I=0)}
    seeding = {"init_first", "init_start", "init_distance", "init_select"}
    assert busy == {"norms", "widen", "stack", *seeding}


def test_sklearn_runs_on_the_host_behind_two_transfers() -> None:
    ops = build("sklearn", check=True)
    assert {op.kind for op in ops.values()} == {"host"}
    assert "check" not in ops
    assert next(iter(ops)) == "to_host"
    assert list(ops)[-1] == "to_device"
    # Tokens there, means back, at the activations' two bytes; one wait each.
    assert at(dict(ops["to_host"].shape)["link_bytes"]) == 576 * 4096 * 2
    assert at(dict(ops["to_device"].shape)["link_bytes"]) == 64 * 4096 * 2
    assert total(ops, "host_syncs", u=3) == 2 * 3
    computing = {name: op for name, op in ops.items() if not name.startswith("to_")}
    assert all(at(dict(op.shape)["link_bytes"]) == 0 for op in computing.values())
    # scikit-learn computes in fp32: twice the fp16 bytes of the tokens.
    assert at(computing["norms"].traffic.act_in) == 576 * 4096 * 4


def test_the_host_computes_in_fp32() -> None:
    op = build("sklearn")["assign_distance"]
    assert at(op.traffic.act_out) == 576 * 64 * 4
