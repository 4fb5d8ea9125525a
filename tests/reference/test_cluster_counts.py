"""k-means that runs: FLOPs against the cost model's formula, launches by phase, no waiting."""

from __future__ import annotations

from collections.abc import Callable
from shutil import which
from typing import Any

import pytest

from costmodel.ops import exact
from costmodel.ops.kmeans import KMeansImpl, KMeansProblem, kmeans
from costmodel.symbols import sym

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from costmodel.reference.kmeans_fused import kmeans_images  # noqa: E402
from costmodel.reference.methods.cluster import cluster_means  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify

PROBLEM = KMeansProblem(
    "km", sym("u"), sym("m"), sym("k"), sym("c"), sym("I"), sym("R"), sym("J")
)  # fmt: skip


def formula(impl: KMeansImpl, **sizes: int) -> int:
    """FLOPs of the distance products by the cost model."""
    values = {sym(name): value for name, value in sizes.items()}
    ops = [op for op in kmeans(PROBLEM, impl, check=False) if op.matmul]
    return sum(exact(op.flops * op.repeat, values) for op in ops)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["eager", "fused"])
@pytest.mark.parametrize(
    ("batch", "tokens", "kept", "width", "iterations", "restarts", "trials"),
    [
        (1, 576, 64, 32, 10, 1, 1),
        (1, 196, 20, 64, 4, 1, 1),
        (3, 100, 9, 16, 2, 1, 1),
        (1, 60, 1, 8, 3, 1, 1),
        (2, 60, 5, 8, 0, 2, 3),
        (2, 80, 16, 24, 3, 3, 5),
        (1, 40, 40, 8, 1, 1, 2),
    ],
)
def test_flops(
    variant: KMeansImpl, batch: int, tokens: int, kept: int, width: int, iterations: int,
    restarts: int, trials: int, dtype: Any,
) -> None:  # fmt: skip
    points = torch.randn(batch, tokens, width, dtype=dtype)
    found = count_flops(
        lambda: cluster_means(
            points, kept, variant=variant, iterations=iterations, n_init=restarts,
            init_trials=trials, check=False,
        )
    )  # fmt: skip
    assert found == formula(
        variant, u=batch, m=tokens, k=kept, c=width, I=iterations, R=restarts, J=trials
    )


def launches(
    variant: str = "eager", batch: int = 1, kept: int = 16, iterations: int = 4, restarts: int = 1,
    trials: int = 1, dtype: Any = torch.float32, **params: Any,
) -> int:  # fmt: skip
    points = torch.randn(batch, 100, 16, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return count_calls(
        lambda: cluster_means(
            points, kept, variant=variant, iterations=iterations, n_init=restarts,
            init_trials=trials, **{"check": False, **params},
        )
    ).launches  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["eager", "fused"])
@pytest.mark.parametrize(
    ("batch", "kept", "iterations", "restarts", "trials"),
    [(1, 64, 10, 1, 1), (3, 16, 4, 1, 1), (2, 16, 4, 3, 1), (1, 9, 2, 2, 5)],
)
def test_launches_are_those_of_the_cost_model(
    variant: KMeansImpl, batch: int, kept: int, iterations: int, restarts: int, trials: int,
    dtype: Any,
) -> None:  # fmt: skip
    sizes = {
        "u": batch, "m": 100, "k": kept, "c": 16, "I": iterations, "R": restarts, "J": trials,
        "ba": dtype.itemsize,
    }  # fmt: skip
    values = {sym(name): value for name, value in sizes.items()}
    ops = kmeans(PROBLEM, variant, check=False, casts=dtype != torch.float32)
    predicted = sum(exact(op.launches * op.repeat, values) for op in ops)
    counted = launches(variant, batch, kept, iterations, restarts, trials, dtype)
    assert abs(predicted - counted) <= 0.1 * counted
    assert variant != "eager" or predicted == counted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("restarts", "trials"), [(1, 1), (3, 4)])
@pytest.mark.parametrize(("kept", "iterations"), [(1, 0), (16, 4), (64, 10)])
@pytest.mark.parametrize("batch", [1, 3])
def test_operators_by_phase(
    batch: int, kept: int, iterations: int, restarts: int, trials: int, dtype: Any
) -> None:
    """Regression values: operators that this code launches, counted one by one below."""
    cast = int(dtype == torch.bfloat16)
    # Norm and square, ones, and the copy in fp32 from which sums are made.
    image = 3 + cast
    # Draw (2), gather of the point and its norm (2), product, three to complete the distances,
    # its own set to zero, joined indices, gather of the centres.
    first = 11
    # Sum of distances, its last times a random number, search, two gathers, product, three to
    # complete, zero, minimum; with several candidates sum, best, and two gathers.
    centre = 11 + 4 * (trials > 1)
    # Norms (2), product, difference, minimum, cleared sums and counts (2), both added to (2),
    # and mean (3, and a cast).
    iteration = 12 + cast
    best = 5 * (restarts > 1)
    restart = first + (kept - 1) * centre + iterations * iteration
    expected = 2 + batch * (image + restarts * restart + best)
    found = launches("eager", batch, kept, iterations, restarts, trials, dtype)
    assert found == expected


def test_operators_of_a_convergence_test_and_of_the_order() -> None:
    plain = launches()
    # Once: mean, differences, norm and the scalar; each time: difference, norm and the scalar.
    assert launches(check=True, tolerance=0.0) - plain == 4 + 4 * 3
    # Positions, cleared sums, added to, mean, sort, gather.
    assert launches(order="position") - plain == 6


def test_fused_launches_do_not_grow_with_images_and_restarts() -> None:
    assert launches("fused", batch=4) == launches("fused", batch=1)
    assert launches("fused", restarts=5) == launches("fused", restarts=2)
    for variant in ("eager", "fused"):
        assert launches(variant, kept=17) - launches(variant) == 11
        iteration = 12 if variant == "eager" else 13
        assert launches(variant, iterations=5) - launches(variant) == iteration


@pytest.mark.parametrize("variant", ["eager", "fused"])
def test_the_host_waits_only_for_convergence(variant: str) -> None:
    points = torch.randn(2, 100, 16, generator=torch.Generator().manual_seed(0))

    def run(**params: Any) -> Callable[[], Any]:
        return lambda: cluster_means(points, 12, variant=variant, iterations=3, **params)

    assert count_calls(run(check=False, n_init=2, init_trials=3, order="position")).waits == 0
    if variant == "eager":
        assert count_calls(run(tolerance=0.0)).waits == 2 * (1 + 3)


def test_fused_reads_no_values() -> None:
    """Meta tensors have shapes and no values: reading one, or a shape made of one, is an error."""
    points = torch.empty(2, 50, 8, device="meta", dtype=torch.bfloat16)
    for order in ("insertion", "position"):
        means = cluster_means(points, 6, variant="fused", order=order, n_init=2, init_trials=3)
        assert means.shape == (2, 6, 8)
    with pytest.raises(RuntimeError, match="item"):
        cluster_means(points, 6, variant="eager", check=True)


def fused(points: Any, uniform: Any) -> Any:
    return kmeans_images(points, 6, iterations=2, uniform=uniform, by_position=True)


def test_fused_is_one_graph() -> None:
    points, uniform = torch.randn(2, 50, 8), torch.rand(2, 2, 6, 3)
    expected = fused(points, uniform)
    traced = make_fx(fused, tracing_mode="fake")(points, uniform)
    torch.testing.assert_close(traced(points, uniform), expected)
    whole = torch.compile(fused, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(points, uniform), expected)


# torch's own compiler imports what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.skipif(which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_steps_compute_the_same() -> None:
    points = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    found, expected = (
        cluster_means(points, 6, variant=variant, check=False,
                      generator=torch.Generator().manual_seed(3))
        for variant in ("compiled", "fused")
    )  # fmt: skip
    torch.testing.assert_close(found, expected)
