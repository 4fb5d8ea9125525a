"""MQT and TokenPacker against modules written in torch as the authors' code has them.

Sizes of the modules (256 queries, 16 heads; heads of 128, four layers of 1024 joined) are those of
``multimodal_projector/builder.py`` in gordonhu608/MQT-LLaVA and CircleRadon/TokenPacker.
"""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.case import prepare
from costmodel.compression.method import parse
from costmodel.compression.plan import CompressionPlan
from costmodel.evaluation import evaluate, evaluate_expressions, resolve
from costmodel.program import Program

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from torch import nn  # noqa: E402

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify

WIDTH, SIDE, TAPS, HEAD = 1024, 24, 4, 128
QUERIES, HEADS = 256, 16


def norms(width: int) -> Any:
    return nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(3))


def two_linears(into: int, out: int) -> Any:
    return nn.Sequential(nn.Linear(into, out), nn.GELU(), nn.Linear(out, out))


def resized(grid: Any, side: int, mode: str) -> Any:
    """Interpolate ``[images, side, side, width]`` in fp32, back to rows in its own format."""
    image = grid.float().permute(0, 3, 1, 2)
    out = nn.functional.interpolate(image, size=(side, side), mode=mode, align_corners=False)
    return out.permute(0, 2, 3, 1).flatten(1, 2).to(grid.dtype)


class Packer(nn.Module):  # type: ignore[misc]
    """Each query, a token of the coarse grid, attends to its window x window tokens."""

    def __init__(self, hidden: int, window: int, width: int = WIDTH) -> None:
        super().__init__()
        self.window = window
        self.query = nn.Linear(width, width, bias=False)
        self.key = two_linears(TAPS * width, width)
        self.value = two_linears(TAPS * width, width)
        self.norms = norms(width)
        self.attention = nn.MultiheadAttention(width, max(1, width // HEAD))
        self.out = two_linears(width, hidden)

    def regions(self, tokens: Any, window: int) -> Any:
        """Turn ``[images, tokens, width]`` into ``[window**2, regions * images, width]``."""
        tokens = tokens.permute(1, 0, 2)
        count, images, width = tokens.shape
        coarse = int(count**0.5) // window
        tokens = tokens.reshape(coarse, window, coarse, window, images, width)
        tokens = tokens.permute(0, 2, 1, 3, 4, 5)
        tokens = tokens.reshape(coarse, coarse, window * window, images, width)
        return tokens.permute(2, 0, 1, 3, 4).reshape(window * window, -1, width)

    def forward(self, layers: list[Any]) -> Any:
        joined, last = torch.cat(layers, dim=2)[:, 1:], layers[-1][:, 1:]
        images, width = last.shape[0], last.shape[2]
        for_query, for_key, for_value = self.norms
        key = for_key(self.key(joined))
        value = for_value(self.value(joined))
        coarse = SIDE // self.window
        query = resized(last.reshape(images, SIDE, SIDE, width), coarse, "bilinear")
        query = for_query(self.query(query))
        found = self.attention(
            self.regions(query, 1),
            self.regions(key, self.window),
            self.regions(value, self.window),
        )[0]
        return self.out(found.reshape(coarse**2, images, width).permute(1, 0, 2))


class Resampler(nn.Module):  # type: ignore[misc]
    """The first k learned queries attend to all tokens, whose keys are positions alone."""

    def __init__(self, hidden: int, width: int = WIDTH) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(QUERIES, width), requires_grad=False)
        self.queries = nn.Parameter(torch.randn(QUERIES, width))
        self.norms = norms(width)
        self.attention = nn.MultiheadAttention(width, HEADS)
        self.project = nn.Parameter(torch.randn(width, hidden))

    def forward(self, tokens: Any, kept: int) -> Any:
        images, width = tokens.shape[0], tokens.shape[2]
        side = int(QUERIES**0.5)
        where = resized(self.positions.reshape(1, side, side, width), SIDE, "bicubic")[0]
        queries = self.queries[:kept].unsqueeze(1).repeat(1, images, 1)
        for_query, for_key, for_value = self.norms
        found = self.attention(
            for_query(queries + self.positions[:kept].unsqueeze(1)),
            for_key(where.unsqueeze(1).repeat(1, images, 1)),
            for_value(tokens.permute(1, 0, 2)),
        )[0]
        return found.permute(1, 0, 2) @ self.project


def built(compress: str, model: str, batch: int = 1) -> tuple[Program, CompressionPlan]:
    case = prepare(model, "a100", text_tokens=64, compress=compress, batch=batch)
    program, plan = case.program()
    assert plan is not None
    return program, plan


def own(compress: str, model: str, batch: int) -> tuple[float, float]:
    """FLOPs of products and launches."""
    program, plan = built(compress, model, batch)
    found = evaluate(program)
    names = {op.name for op in plan.ops}
    rows = zip(found.ops, found.flops, found.launches, found.repeat, strict=True)
    mine = [(op.matmul * f * r, n * r) for op, f, n, r in rows if op.name in names]
    return float(sum(f for f, _ in mine)), float(sum(n for _, n in mine))


def parameters(compress: str, model: str) -> float:
    program, plan = built(compress, model)
    return sum(
        map(
            float,
            evaluate_expressions([w.count for w in plan.weights], resolve(program, "prefill")),
        )
    )


def hidden(model: str) -> int:
    return prepare(model, "a100", text_tokens=64).model.text.hidden_size


def on_meta(images: int, count: int, width: int = WIDTH) -> list[Any]:
    return [
        torch.empty(images, SIDE**2 + 1, width, dtype=torch.half, device="meta")
        for _ in range(count)
    ]


@pytest.mark.parametrize("model", ["llava-1.5-7b", "llava-1.5-13b"])
def test_parameters(model: str) -> None:
    with torch.device("meta"):
        modules: dict[str, Any] = {
            "tokenpacker": Packer(hidden(model), 2),
            "mqt": Resampler(hidden(model)),
        }
    for compress, module in modules.items():
        assert parameters(compress, model) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("model", ["llava-1.5-7b", "llava-1.5-13b"])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("window", [2, 3, 4])
def test_regions(window: int, images: int, model: str) -> None:
    with torch.device("meta"):
        module = Packer(hidden(model), window).half().eval()
    layers = on_meta(images, TAPS)
    flops, launches = own(f"tokenpacker:window={window}", model, images)
    assert flops == count_flops(lambda: module(layers))
    assert module(layers).shape == (images, kept_by(window), hidden(model))
    # 32 for one image, 37 for several.
    assert launches == pytest.approx(count_calls(lambda: module(layers)).launches, rel=0.1)


def kept_by(window: int) -> float:
    return built(f"tokenpacker:window={window}", "llava-1.5-7b")[1].kept.mean


@pytest.mark.parametrize("model", ["llava-1.5-7b", "llava-1.5-13b"])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("kept", [256, 64, 2])
def test_queries(kept: int, images: int, model: str) -> None:
    with torch.device("meta"):
        module = Resampler(hidden(model)).half().eval()
    tokens = on_meta(images, 1)[0][:, 1:]
    flops, launches = own(f"mqt:k={kept}", model, images)
    assert flops == count_flops(lambda: module(tokens, kept))
    assert module(tokens, kept).shape == (images, kept, hidden(model))
    calls = count_calls(lambda: module(tokens, kept))
    assert launches == pytest.approx(calls.launches, rel=0.1)
    assert calls.waits == 0


def test_the_modules_do_what_their_names_say() -> None:
    """A query sees its own region only; the first queries do not depend on later ones."""
    torch.manual_seed(0)
    packer, window = Packer(16, 4, width=32).eval(), 4
    layers = [torch.randn(1, SIDE**2 + 1, 32) for _ in range(TAPS)]
    changed = [layer.clone() for layer in layers]
    for layer in changed:
        layer[:, 1:].reshape(1, SIDE, SIDE, 32)[:, :window, :window] += 1
    with torch.no_grad():
        apart = (packer(layers) - packer(changed)).abs().amax(dim=(0, 2)) > 1e-6
        assert apart.nonzero().flatten().tolist() == [0]
        resampler = Resampler(16, width=32).eval()
        tokens = torch.randn(1, SIDE**2, 32)
        few, many = resampler(tokens, 9), resampler(tokens, 100)
    assert torch.allclose(few, many[:, :9], atol=1e-5)


def test_neither_needs_weights_of_the_tower_or_a_wait() -> None:
    for compress in ("mqt", "tokenpacker"):
        _, plan = built(compress, "llava-1.5-7b")
        assert plan.graph_safe
        assert not plan.needs_attention_weights
        assert plan.replaces_projector
        assert parse(compress).method.training != "none"
