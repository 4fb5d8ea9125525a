"""The ways to run a model: as it is, compiled, captured."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import pytest

from costmodel.reference.models.shapes import load_shape
from costmodel.specs.workload import Runtime as KnownRuntime

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from costmodel.reference.models.eager import EagerModel  # noqa: E402
from costmodel.reference.models.fused import FusedModel, build_fused  # noqa: E402
from costmodel.reference.models.pruned import FastV, PyramidDrop  # noqa: E402
from costmodel.reference.models.runtimes import RUNTIMES, build, wrap  # noqa: E402

pytestmark = pytest.mark.verify

TINY = load_shape("llava-tiny@2layers")
PRUNINGS = {
    "all tokens": None,
    "fastv": FastV(1, 16, "last-row"),
    "fastv as in the paper": FastV(1, 16),
    "pyramid drop": PyramidDrop((1,), (16,), "lean"),
}
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def inputs(device: str = "cpu", text: int = 12) -> tuple[Any, Any]:
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 112, 112, device=device)
    return pixels, torch.randint(0, 1000, (1, text), device=device)


def test_runtimes_are_those_of_the_cost_model() -> None:
    assert KnownRuntime.__args__ == RUNTIMES  # type: ignore[attr-defined]
    assert isinstance(build(TINY, "eager"), EagerModel)
    for runtime in RUNTIMES[1:]:
        assert isinstance(build(TINY, runtime, attention="sdpa"), FusedModel)


def test_wrong_runtimes_are_refused() -> None:
    with pytest.raises(ValueError, match="'jit' is none of eager, compiled, cuda-graph"):
        wrap(abs, "jit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'jit' is none of"):
        build(TINY, "jit")  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_graphs_without_a_gpu() -> None:
    with pytest.raises(RuntimeError, match="'cuda-graph' needs a CUDA device"):
        wrap(abs, "cuda-graph")


@pytest.mark.parametrize("pruning", PRUNINGS.values(), ids=PRUNINGS.keys())
def test_a_pass_is_one_graph(pruning: Any) -> None:
    """A break would hand the rest to the interpreter, and a CUDA graph could not be captured."""
    torch._dynamo.reset()
    model = build_fused(TINY)
    run = partial(model.prefill, cache=model.new_cache(1, 80), pruning=pruning)
    said = torch._dynamo.explain(run)(*inputs())
    assert said.graph_break_count == 0, said.break_reasons
    assert said.graph_count == 1


def test_released_pyramid_drop_cannot_be_captured() -> None:
    torch._dynamo.reset()
    model = build_fused(TINY)
    method = PyramidDrop((1,), (16,), "released")
    run = partial(model.prefill, cache=model.new_cache(1, 80), pruning=method)
    assert torch._dynamo.explain(run)(*inputs()).graph_break_count > 0
    assert not method.graph_safe
    assert PyramidDrop((1,), (16,), "lean").graph_safe


def test_each_shape_gets_its_own_version() -> None:
    """Past torch's limit of versions (8), it would run the function uncompiled and say nothing."""
    torch._dynamo.reset()
    model = build_fused(TINY)
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    run = wrap(
        partial(model.prefill, None, cache=model.new_cache(1, 80)),
        "compiled",
        backend=backend,  # type: ignore[arg-type]
    )
    for text in range(20, 32):
        expected = model.prefill(None, inputs(text=text)[1], model.new_cache(1, 80))
        torch.testing.assert_close(run(inputs(text=text)[1]).logits, expected.logits)
    assert len(graphs) == 12


# Importing torch's own compiler warns of other parts of torch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@needs_compiler
def test_compiled_on_a_cpu() -> None:
    torch._dynamo.reset()
    model = build_fused(TINY)
    caches = model.new_cache(1, 80), model.new_cache(1, 80)
    compiled = wrap(partial(model.prefill, cache=caches[1]), "compiled")
    expected, found = model.prefill(*inputs(), caches[0]), compiled(*inputs())
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    # The last vision layer is read by nothing but this.
    torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-4, atol=1e-4)
    assert caches[1].lengths == (76, 76)
    for keys, others in zip(*(cache.keys for cache in caches), strict=True):
        torch.testing.assert_close(keys, others, rtol=1e-4, atol=1e-4)
    ids = torch.tensor([[3]])
    step = wrap(partial(model.decode_step, cache=caches[1], advance=False), "compiled")
    once = step(ids)
    torch.testing.assert_close(once, model.decode_step(ids, caches[0]), rtol=1e-4, atol=1e-4)
    assert torch.equal(step(ids), once)


@needs_gpu
@pytest.mark.parametrize("compile_first", [True, False])
@pytest.mark.parametrize("pruning", PRUNINGS.values(), ids=PRUNINGS.keys())
def test_captured(pruning: Any, compile_first: bool) -> None:
    model = build_fused(TINY, device="cuda")
    cache = model.new_cache(1, 80)
    run = partial(model.prefill, cache=cache, pruning=pruning)
    captured = wrap(run, "cuda-graph", compile_first=compile_first)
    pixels, text = inputs("cuda")
    captured(torch.zeros_like(pixels), text)
    expected = model.prefill(pixels, text, model.new_cache(1, 80), pruning=pruning)
    found = captured(pixels, text)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-3, atol=1e-3)
