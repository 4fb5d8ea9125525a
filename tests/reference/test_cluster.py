"""k-means that runs: its results against scikit-learn's, and its variants against each other."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.kmeans_eager import kmeans_image  # noqa: E402
from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.cluster import cluster_means  # noqa: E402

pytestmark = pytest.mark.verify

SEEDS = 40


def seeded(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def inertia(points: Any, means: Any) -> float:
    squares = torch.cdist(points.double(), means.double()).square()
    return float(squares.min(1).values.sum())


def made_points(kind: str, tokens: int, width: int, groups: int) -> Any:
    random = seeded(5)
    noise = torch.randn(tokens, width, generator=random)
    if kind == "random":
        return noise
    centres = 2 * torch.randn(groups, width, generator=random)
    return centres[torch.randint(groups, (tokens,), generator=random)] + 0.7 * noise


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["eager", "fused", "sklearn"])
def test_shapes(variant: str, batch: int, dtype: str) -> None:
    if variant == "sklearn":
        pytest.importorskip("sklearn", reason="needs scikit-learn")
    case = MethodCase(
        batch, 50, 7, 16, dtype=dtype, variant=variant, params={"iterations": 3, "n_init": 2}
    )
    made = load_method("cluster").prepare(case)
    out: Any = made.run()
    assert out.shape == (batch, 7, 16)
    assert out.dtype == case.torch_dtype
    assert (made.output_tokens, made.parameters) == (7, 0)
    assert made.graph_safe == (variant == "fused")


@pytest.mark.parametrize("distances", ["input", "fp32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["eager", "fused"])
def test_keeping_all_is_the_identity_up_to_order(variant: str, dtype: Any, distances: str) -> None:
    tokens = torch.randn(2, 60, 32, generator=seeded()).to(dtype)
    for order in ("insertion", "position"):
        means = cluster_means(
            tokens, 60, variant=variant, order=order, distances=distances, generator=seeded()
        )
        if order == "position":
            assert torch.equal(means, tokens)
        for image, found in zip(tokens.tolist(), means.tolist(), strict=True):
            assert sorted(found) == sorted(image)


def test_one_cluster_is_the_mean() -> None:
    tokens = torch.randn(2, 60, 8)
    for variant in ("eager", "fused"):
        means = cluster_means(tokens, 1, variant=variant, iterations=1)
        torch.testing.assert_close(means[:, 0], tokens.mean(1))


def test_one_lloyd_iteration_after_seeding() -> None:
    """Means of the tokens nearest to each centre that k-means++ alone returns."""
    tokens = torch.randn(1, 100, 8, generator=seeded())
    centres = cluster_means(tokens, 9, iterations=0, check=False, generator=seeded(3))[0]
    assert all((tokens[0] == centre).all(1).any() for centre in centres)
    labels = torch.cdist(tokens[0], centres).argmin(1)
    expected = torch.stack([tokens[0, labels == cluster].mean(0) for cluster in range(9)])
    for variant in ("eager", "fused"):
        found = cluster_means(
            tokens, 9, variant=variant, iterations=1, check=False, generator=seeded(3)
        )
        torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("order", ["insertion", "position"])
@pytest.mark.parametrize(("restarts", "trials"), [(1, 1), (3, 4)])
@pytest.mark.parametrize("iterations", [0, 1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_and_eager_agree(
    dtype: Any, iterations: int, restarts: int, trials: int, order: str
) -> None:
    tokens = torch.randn(3, 150, 24, generator=seeded()).to(dtype)
    eager, fused = (
        cluster_means(
            tokens, 12, variant=variant, iterations=iterations, n_init=restarts,
            init_trials=trials, check=False, order=order, generator=seeded(7),
        )
        for variant in ("eager", "fused")
    )  # fmt: skip
    torch.testing.assert_close(fused, eager)


@pytest.mark.parametrize("variant", ["eager", "fused", "sklearn"])
def test_a_generator_decides(variant: str) -> None:
    if variant == "sklearn":
        pytest.importorskip("sklearn", reason="needs scikit-learn")
    tokens = torch.randn(2, 80, 8)
    first, again, other = (
        cluster_means(tokens, 10, variant=variant, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("variant", ["eager", "fused"])
def test_empty_clusters_keep_their_centre(variant: str) -> None:
    """Three different tokens, five clusters: two of them have nothing to average."""
    tokens = torch.eye(3).repeat(4, 1)[None]
    means = cluster_means(tokens, 5, variant=variant, order="position", generator=seeded())
    assert torch.isfinite(means).all()
    assert {tuple(row) for row in means[0].tolist()} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


@pytest.mark.parametrize("variant", ["eager", "fused", "sklearn"])
def test_clusters_in_order_of_position(variant: str) -> None:
    if variant == "sklearn":
        pytest.importorskip("sklearn", reason="needs scikit-learn")
    groups = torch.tensor([[0.0, 0], [100, 0], [0, 100], [50, 50]])
    tokens = (groups.repeat_interleave(10, 0) + 0.1 * torch.randn(40, 2))[None]
    means = cluster_means(
        tokens, 4, variant=variant, order="position", n_init=5, generator=seeded()
    )
    torch.testing.assert_close(means[0], groups, atol=1.0, rtol=0)


def test_eager_stops_when_converged() -> None:
    points = made_points("clustered", 200, 8, 10)
    uniform = torch.rand(1, 10, 1, generator=seeded())
    checked = kmeans_image(points, 10, iterations=300, uniform=uniform, tolerance=0.0)
    assert 1 < checked.iterations < 100
    again = kmeans_image(points, 10, iterations=checked.iterations, uniform=uniform)
    assert again.iterations == checked.iterations
    assert torch.equal(again.means, checked.means)
    more = kmeans_image(points, 10, iterations=300, uniform=uniform)
    assert more.iterations == 300
    assert inertia(points, more.means) == pytest.approx(inertia(points, checked.means), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["eager", "fused"])
@pytest.mark.parametrize(("restarts", "trials"), [(1, 1), (1, 5), (3, 4)])
@pytest.mark.parametrize(
    ("kind", "tolerated"), [("random", 0.01), ("clustered", 0.02)], ids=["random", "clustered"]
)
def test_inertia_is_no_worse_than_scikit_learns(
    kind: str, tolerated: float, restarts: int, trials: int, variant: str, dtype: Any
) -> None:
    """Mean over 40 seeds at the same restarts, candidates and iterations."""
    sklearn = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn")
    points, clusters, iterations = made_points(kind, 300, 24, 24), 16, 20

    def init(rows: Any, number: int, random_state: Any) -> Any:
        return sklearn.kmeans_plusplus(
            rows, number, random_state=random_state, n_local_trials=trials
        )[0]  # fmt: skip

    theirs = sum(
        inertia(points, torch.from_numpy(fitted.cluster_centers_))
        for fitted in (
            sklearn.KMeans(clusters, init=init, n_init=restarts, max_iter=iterations, tol=0,
                           random_state=seed).fit(points.numpy())
            for seed in range(SEEDS)
        )
    )  # fmt: skip

    def ours(steps: int) -> float:
        means = cluster_means(
            points.expand(SEEDS, -1, -1).to(dtype), clusters, variant=variant, iterations=steps,
            n_init=restarts, init_trials=trials, check=False, generator=seeded(),
        )  # fmt: skip
        return sum(inertia(points, found) for found in means)

    assert ours(iterations) < (1 + tolerated) * theirs
    assert ours(0) > 1.1 * theirs, "the bound must tell clustering from its seeding"


def test_parameters_that_cannot_be() -> None:
    tokens = torch.randn(1, 20, 4)
    for params, message in (
        ({"variant": "magic"}, "variant: 'magic' is none of eager, fused, compiled, sklearn"),
        ({"order": "size"}, "order: 'size' is none of insertion, position"),
        ({"distances": "int8"}, "distances: 'int8' is none of input, fp32"),
        ({"iterations": -1}, "iterations: -1 is not at least 0"),
        ({"iterations": 0, "variant": "sklearn"}, "iterations: 0 is not at least 1"),
        ({"n_init": 0}, "n_init: 0 is not at least 1"),
        ({"init_trials": 0}, "init_trials: 0 is not at least 1"),
        ({"tolerance": -1.0}, "tolerance: -1.0 is negative"),
        ({"variant": "fused", "check": True}, "check: variant 'fused' never waits"),
    ):
        with pytest.raises(ValueError, match=message):
            cluster_means(tokens, 3, **params)
