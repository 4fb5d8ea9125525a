"""Fusion modules, pooling and k-means, written out in torch, against our formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import prepare
from costmodel.compression.plan import CompressionPlan
from costmodel.program import Program

if TYPE_CHECKING:
    from tests.verify.conftest import Truth

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify

SIDE, TOWER_WIDTH = 24, 1024
MODEL_WIDTHS = {"llava-1.5-7b": 4096, "llava-1.5-13b": 5120}


def compressed(
    compress: str, model: str = "llava-1.5-7b", batch: int = 1, images: int = 1
) -> tuple[Program, CompressionPlan]:
    made, plan = prepare(
        model,
        "a100-80gb-sxm",
        text_tokens=64,
        batch=batch,
        images=[(336, 336)] * images,
        compress=compress,
    ).program()
    assert plan is not None
    return made, plan


def mbtf(blocks: int = 8) -> Any:
    """Multi-block fusion: tower layers joined along channels, two linear layers [1].

    [1] H. Tang, C. Shen, arXiv:2506.07138, and its public code.
    """
    from torch import nn

    return nn.Sequential(
        nn.Linear(blocks * TOWER_WIDTH, 4 * TOWER_WIDTH),
        nn.GELU(),
        nn.Linear(4 * TOWER_WIDTH, TOWER_WIDTH),
    )


def stf(out: int, window: int = 2) -> Any:
    """Spatial fusion as in the public code: neighbours joined, two linear layers."""
    from torch import nn

    class SpatialFusion(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(window**2 * TOWER_WIDTH, 16 * TOWER_WIDTH)
            self.second = nn.Linear(16 * TOWER_WIDTH, out)

        def forward(self, grid: Any) -> Any:
            batch, side, _, width = grid.shape
            kept = side // window
            cut = grid.reshape(batch, kept, window, kept, window, width)
            joined = cut.transpose(2, 3).reshape(batch, kept, kept, -1)
            return self.second(nn.functional.gelu(self.first(joined)))

    return SpatialFusion()


def stf_of_paper(out: int) -> Any:
    """Spatial fusion as the paper draws it: a strided convolution and a 1 x 1 one."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(TOWER_WIDTH, 16 * TOWER_WIDTH, kernel_size=2, stride=2),
        nn.GELU(),
        nn.Conv2d(16 * TOWER_WIDTH, out, kernel_size=1),
    )


def size_of(*modules: Any) -> int:
    return sum(tensor.numel() for module in modules for tensor in module.parameters())


def grid(batch: int, width: int) -> Any:
    return torch.empty(batch, SIDE, SIDE, width, device="meta")


def on_meta(make: Callable[..., Any], *sizes: int) -> Any:
    with torch.device("meta"):
        return make(*sizes)


@pytest.mark.parametrize("blocks", [1, 8, 24])
@pytest.mark.parametrize("batch", [1, 3])
def test_mbtf(truth: Truth, batch: int, blocks: int) -> None:
    module = on_meta(mbtf, blocks)
    maps = [grid(batch, TOWER_WIDTH) for _ in range(blocks)]
    fused, (expected,) = truth.count_flops(lambda: module(torch.cat(maps, -1)))
    assert fused.shape == maps[0].shape
    made, plan = compressed(f"mbtf:blocks={blocks}", batch=batch)
    assert truth.our_flops(made)["compression"] == expected
    assert truth.our_parameters(made)["compression"] == size_of(module)
    assert plan.kept.mean == SIDE**2
    if blocks == 8:
        assert size_of(module) == 37_753_856


@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("model", MODEL_WIDTHS)
def test_stf(truth: Truth, model: str, batch: int, window: int) -> None:
    module = on_meta(stf, MODEL_WIDTHS[model], window)
    fused, (expected,) = truth.count_flops(lambda: module(grid(batch, TOWER_WIDTH)))
    kept = SIDE // window
    assert fused.shape == (batch, kept, kept, MODEL_WIDTHS[model])
    made, plan = compressed(f"stf:window={window}", model, batch)
    found = truth.our_flops(made)
    assert found["compression"] == expected
    assert found["projector"] == 0
    parameters = truth.our_parameters(made)
    assert parameters["compression"] == size_of(module)
    assert parameters["projector"] == 0
    assert plan.kept.mean == kept**2


def test_stf_is_the_convolution_of_the_paper(truth: Truth) -> None:
    module = on_meta(stf_of_paper, 4096)
    pixels = grid(1, TOWER_WIDTH).permute(0, 3, 1, 2)
    fused, (expected,) = truth.count_flops(lambda: module(pixels))
    assert fused.shape == (1, 4096, 12, 12)
    assert truth.our_flops(compressed("stf")[0])["compression"] == expected
    assert size_of(module) == size_of(on_meta(stf, 4096)) == 134_238_208


def test_mbtf_and_stf(truth: Truth) -> None:
    """The whole method: 8192 channels in, 12 x 12 tokens out, a shorter prompt."""
    first, second = on_meta(mbtf), on_meta(stf, 4096)
    joined = grid(2, 8 * TOWER_WIDTH)
    assert joined.shape[-1] == 8192
    fused, (expected,) = truth.count_flops(lambda: second(first(joined)))
    assert fused.shape == (2, 12, 12, 4096)
    made, plan = compressed("mbtf+stf", batch=2)
    found = truth.our_flops(made)
    assert found["compression"] == expected
    assert truth.our_parameters(made)["compression"] == 37_753_856 + 134_238_208
    assert plan.kept.mean == 144
    plain = truth.our_flops(truth.program(truth.reference("llava-1.5-7b").spec, text=208, batch=2))
    assert found["llm"] == plain["llm"]
    tokens = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, batch=2).program()[0]
    assert found["vision_encoder"] == truth.our_flops(tokens)["vision_encoder"]


@pytest.mark.parametrize("window", [2, 3])
def test_average_pooling_multiplies_nothing(truth: Truth, window: int) -> None:
    pool = partial(torch.nn.functional.avg_pool2d, kernel_size=window)
    pooled, (expected,) = truth.count_flops(lambda: pool(grid(1, 4096).permute(0, 3, 1, 2)))
    made, plan = compressed(f"avgpool:window={window}")
    assert expected == truth.our_flops(made)["compression"] == 0
    assert truth.our_parameters(made).get("compression", 0) == 0
    assert plan.kept.mean == pooled.shape[2] * pooled.shape[3]


# --- k-means -------------------------------------------------------------------


def squared_distances(points: Any, centres: Any) -> Any:
    """|x - c|^2 by one product, as every fast implementation does."""
    norms = points.square().sum(1, keepdim=True) + centres.square().sum(1)
    return norms - 2 * points @ centres.T


def seed(points: Any, centres: int, trials: int) -> Any:
    """k-means++: each centre is the best of `trials` candidates drawn by distance."""
    chosen = [points[torch.randint(len(points), (1,))]]
    nearest = squared_distances(points, chosen[0]).clamp(min=1e-9)
    for _ in range(centres - 1):
        drawn = points[torch.multinomial(nearest[:, 0], trials, replacement=True)]
        closer = torch.minimum(nearest, squared_distances(points, drawn).clamp(min=1e-9))
        best = closer.sum(0).argmin()
        chosen.append(drawn[best][None])
        nearest = closer[:, best][:, None]
    return torch.cat(chosen)


def cluster(points: Any, centres: int, iterations: int, restarts: int, trials: int) -> Any:
    """Lloyd's iterations after k-means++, the best of `restarts`; returns the cluster means."""
    found: list[tuple[float, Any]] = []
    for _ in range(restarts):
        means, inertia = seed(points, centres, trials), float("inf")
        for _ in range(iterations):
            distances, labels = squared_distances(points, means).min(1)
            inertia = float(distances.sum())
            sums = torch.zeros_like(means).index_add_(0, labels, points)
            counts = torch.bincount(labels, minlength=centres)[:, None]
            means = torch.where(counts > 0, sums / counts.clamp(min=1), means)
        found.append((inertia, means))
    return min(found, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize(
    ("centres", "iterations", "restarts", "trials"),
    [(64, 10, 1, 1), (1, 3, 1, 1), (16, 0, 2, 4), (32, 5, 3, 5), (144, 2, 1, 2)],
)
def test_distance_products(
    truth: Truth, centres: int, iterations: int, restarts: int, trials: int
) -> None:
    torch.manual_seed(0)
    points = torch.randn(SIDE**2, 64)
    run: Callable[[], Any] = partial(cluster, points, centres, iterations, restarts, trials)
    means, (expected,) = truth.count_flops(run)
    assert means.shape == (centres, 64)
    options = f"k={centres},iterations={iterations},n_init={restarts},init_trials={trials}"
    for impl in ("eager", "fused", "sklearn"):
        made, plan = compressed(f"cluster:{options},impl={impl}")
        # The products are linear in the width, so narrow vectors stand for the model's 4096.
        assert truth.our_flops(made)["compression"] == expected * 4096 // 64
        assert plan.kept.mean == centres


@pytest.mark.parametrize("position", ["after_projector", "before_projector"])
def test_clusters_of_several_images_and_requests(truth: Truth, position: str) -> None:
    torch.manual_seed(0)
    width = 4096 if position == "after_projector" else TOWER_WIDTH
    points = torch.randn(6, SIDE**2, width)
    _, (expected,) = truth.count_flops(lambda: [cluster(one, 8, 3, 1, 1) for one in points])
    made, plan = compressed(f"cluster:k=8,iterations=3,position={position}", batch=3, images=2)
    found = truth.our_flops(made)
    assert found["compression"] == expected
    assert plan.kept.mean == 16
    projector = truth.reference("llava-1.5-7b").projector
    rows = 6 * (SIDE**2 if position == "after_projector" else 8)
    features = torch.empty(rows, TOWER_WIDTH, device="meta")
    assert found["projector"] == truth.count_flops(lambda: projector(features))[1][0]
