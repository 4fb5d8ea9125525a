"""Peak memory of whole models against what PyTorch's allocator would report, tensor by tensor.

transformers' modules of full size in bf16 run on a GPU that is not there (`peak_memory`); what
exists at the peak of a first token is compared with `costmodel.memory.memory`.  Left out by the
model, and named here: pixels and token ids (taken off as inputs), tables of the rotary embedding,
masks of fused attention, statistics of norms.  Left out by both: workspaces inside kernels.
"""

from __future__ import annotations

import gc
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import prepare
from costmodel.evaluation import evaluate
from costmodel.memory import Memory, memory

if TYPE_CHECKING:
    from costmodel.reference.models.eager import EagerModel

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from tests.verify.peak_memory import Tracker, fake_gpu, place  # noqa: E402

pytestmark = pytest.mark.verify

CALLED = {"sdpa": "flash", "eager": "eager"}
"""transformers' names of attention without a padding mask, and those of the cost model."""

LLAVA = [(1, 40, 8), (16, 40, 8), (1, 40, 64), (4, 144, 64), (1, 576, 64), (16, 576, 64),
         (4, 576, 2048), (1, 576, 4096)]  # fmt: skip
TEXT = [(1, 64), (16, 64), (4, 640), (1, 4096), (16, 2048)]
CASES = [
    *((model, attention, *sizes) for model in ("llava-1.5-7b", "llava-1.5-13b")
      for attention in CALLED for sizes in LLAVA),
    *((model, attention, batch, 0, text) for model in ("llama-3-8b", "qwen2.5-7b")
      for attention in CALLED for batch, text in TEXT),
]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Bytes of a first token: weights, pixels and ids, KV cache, and the peak of all [B]."""

    weights: int
    inputs: int
    kept: int
    peak: int


@cache
def model_of(name: str, attention: str) -> EagerModel:
    from costmodel.reference.models.eager import build_eager
    from costmodel.reference.models.shapes import load_shape

    built: Any = build_eager
    made: EagerModel = built(load_shape(name), device="meta", dtype="bf16", attention=attention)
    return made


def new(*shape: int, dtype: Any = torch.bfloat16) -> Any:
    return torch.empty(shape, dtype=dtype, device="cuda")


def run_first_token(name: str, attention: str, batch: int, visual: int, text: int) -> Measured:
    """Run pixels to logits; of the projected tokens the first `visual` enter the decoder."""
    from costmodel.reference.models.eager import _fill_buffers

    model = model_of(name, attention)
    with fake_gpu() as tracker:
        place(model)
        _fill_buffers(model, model.shape.decoder)
        gc.collect()
        weights = tracker.current_bytes
        ids, held = new(batch, text, dtype=torch.int64), model.new_cache(batch, 0)
        pixels = new(batch, 3, 336, 336) if visual else None
        inputs = tracker.current_bytes - weights
        tracker.restart()
        tokens = None
        if pixels is not None:
            features, _ = model.encode(pixels)
            tokens = model.projector(features)
            del features
            tokens = tokens if visual == tokens.shape[1] else tokens[:, :visual].clone()
        model.prefill(tokens, ids, held)
        kept = sum(keys.nbytes + values.nbytes for keys, values in held.snapshot())
        return Measured(weights, inputs, kept, tracker.peak_bytes)


def predicted(name: str, attention: str, batch: int, visual: int, text: int) -> Memory:
    # The decoder of qwen2.5-vl-7b, without its tower.
    model = "qwen2.5-vl-7b" if name == "qwen2.5-7b" else name
    options: Any = {} if name.startswith("llama") else {"visual_tokens": visual}
    case = prepare(
        model, "h100-sxm", text_tokens=text, batch=batch, dtype="bf16", runtime="eager",
        attention=CALLED[attention], **options,
    )  # fmt: skip
    return memory(case.program()[0])


@pytest.mark.parametrize(("name", "attention", "batch", "visual", "text"), CASES)
def test_first_token(name: str, attention: str, batch: int, visual: int, text: int) -> None:
    found = run_first_token(name, attention, batch, visual, text)
    expected = predicted(name, attention, batch, visual, text)
    assert float(expected.kv_cache) == found.kept
    weights = float(expected.weights)
    if name != "qwen2.5-7b":
        # Blocks of 512 B; and the rotary frequencies, which are no parameters.
        assert weights == pytest.approx(found.weights, rel=1e-5)
        # Of the total only inputs are missing, most where little else is: 11 MB of 15 GB.
        assert float(expected.total) == pytest.approx(found.peak, rel=1e-3)
    # Rotary tables, the same for all requests, are 1/200 of the activations of one.
    activations = found.peak - found.weights - found.inputs - found.kept
    beside_cache = float(expected.beside_weights - expected.kv_cache)
    assert beside_cache == pytest.approx(activations, rel=6e-3)


@pytest.mark.parametrize("batch", [1, 16])
def test_transformers_own_llava(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole class, whose forward pass names more: two states of the tower, features twice."""
    import transformers
    from transformers.models.llava import modeling_llava

    # It counts placeholders, for which the host waits.
    monkeypatch.setattr(modeling_llava, "torch_compilable_check", lambda *_: None)
    text = transformers.LlamaConfig(
        vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
    config = transformers.LlavaConfig(vision_config=vision, text_config=text)
    with torch.device("meta"):
        model = transformers.LlavaForConditionalGeneration(config).to(torch.bfloat16).eval()
    with fake_gpu() as tracker:
        place(model)
        gc.collect()
        ids, pixels = new(batch, 640, dtype=torch.int64), new(batch, 3, 336, 336)
        tracker.restart()
        model(input_ids=ids, pixel_values=pixels, use_cache=True, logits_to_keep=1)
    expected = predicted("llava-1.5-7b", "sdpa", batch, 576, 64)
    assert float(expected.total) == pytest.approx(tracker.peak_bytes, rel=0.01)


def test_decode_concatenates_keys_and_then_values() -> None:
    """One more token: the old keys of one layer live beside the new ones, the values later."""
    model, text = model_of("llava-1.5-7b", "sdpa"), 8000
    with fake_gpu() as tracker:
        place(model)
        gc.collect()
        weights = tracker.current_bytes
        ids, held = new(1, text, dtype=torch.int64), model.new_cache(1, 0)
        model.prefill(None, ids, held)
        tracker.restart()
        model._logits(model.embed(ids[:, -1:]), held)
        kept = sum(keys.nbytes + values.nbytes for keys, values in held.snapshot())
        activations = tracker.peak_bytes - weights - kept
    program = prepare(
        "llava-1.5-7b", "h100-sxm", text_tokens=text, visual_tokens=0, output_tokens=1,
        dtype="bf16", runtime="eager",
    ).program()[0]  # fmt: skip
    live = float(evaluate(program, "decode").live.max())
    assert live == pytest.approx(activations, rel=5e-3)


METHODS = {
    "stf:window=2": 1024,
    "mbtf": 1024,
    "cluster:k=64,check=false": 4096,
    "cluster:k=64,impl=fused": 4096,
    "visionzip:k=64,maps=one,impl=fused": 1024,
}
"""Methods, and the width of the tokens that they work on."""


def method_on(compress: str, batch: int) -> tuple[Callable[[], Any], list[Any]]:
    """Return a call of the runnable method, and what it is given (weights are left out)."""
    from costmodel.reference.methods.cluster import cluster_means
    from costmodel.reference.methods.mbtf import MultiBlockTokenFusion
    from costmodel.reference.methods.stf import SpatialTokenFusion
    from costmodel.reference.methods.visionzip import Budget, FusedZip

    name, width = compress.partition(":")[0], METHODS[compress]
    if name == "cluster":
        tokens = new(batch, 576, width)
        variant = "fused" if "impl=fused" in compress else "eager"
        return lambda: cluster_means(tokens, 64, variant=variant, check=False), [tokens]
    if name == "visionzip":
        given = [new(batch, 577, width), new(batch, 16, 577, 577), new(batch, 16, 577, 64)]
        zipped = FusedZip(577, Budget.of(64), "cuda")
        return lambda: zipped(*given), given
    with torch.device("meta"):
        module = SpatialTokenFusion(1024, 4096, 2) if name == "stf" else MultiBlockTokenFusion(1024)
    place(module, torch.bfloat16)
    maps = (
        [new(batch, 577, width) for _ in range(8)] if name == "mbtf" else [new(batch, 576, width)]
    )
    return (lambda: module(maps)) if name == "mbtf" else (lambda: module(maps[0])), maps


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("compress", METHODS)
def test_method_alone(compress: str, batch: int) -> None:
    """What a method needs at its peak, with what it is given."""
    program = prepare(
        "llava-1.5-7b", "h100-sxm", text_tokens=64, batch=batch, dtype="bf16", runtime="eager",
        compress=compress,
    ).program()[0]  # fmt: skip
    found = evaluate(program)
    own = [op.stage == "compression" for op in found.ops]
    with fake_gpu() as tracker:
        run, given = method_on(compress, batch)
        gc.collect()
        tracker.restart()
        given_bytes = sum(part.nbytes for part in given)
        before = tracker.current_bytes - given_bytes
        run()
        measured = tracker.peak_bytes - before
    # k-means of one image at a time keeps the means of those done; the zip its dominant tokens.
    assert float(found.live[own].max()) == pytest.approx(measured, rel=0.06)


@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)
# torch deprecates parts that its compiler imports.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_first_token(tmp_path: Path) -> None:
    """The fused model compiled for a processor, whose allocations the profiler counts.

    The compiler keeps the residual as a sum of four arrays and drops what is read no more; which
    buffers it overwrites does not depend on the device.
    """
    from costmodel.reference.models.fused import build_fused
    from costmodel.reference.models.runtimes import wrap
    from costmodel.reference.models.shapes import load_shape
    from costmodel.reference.suites._config import config_json

    shape, batch, text = load_shape("llava-small"), 2, 64
    build: Any = build_fused
    model = build(shape, dtype="bf16")
    held = model.new_cache(batch, text + 576)
    tokens = torch.zeros(batch, 576, shape.decoder.width, dtype=torch.bfloat16)
    ids = torch.zeros(batch, text, dtype=torch.int64)
    run = wrap(lambda tokens, ids: model.prefill(tokens, ids, held).logits, "compiled")
    with torch.no_grad():
        run(tokens, ids)
        with torch.profiler.profile(profile_memory=True) as profiled:
            run(tokens, ids)
    events = sorted(
        (
            event
            for event in profiled.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ),
        key=lambda event: event.start_ns(),
    )
    measured = max(itertools.accumulate(event.nbytes() for event in events)) + tokens.nbytes

    (tmp_path / "config.json").write_text(config_json(shape))
    program = prepare(
        str(tmp_path / "config.json"), "h100-sxm", text_tokens=text, batch=batch, dtype="bf16",
        runtime="compiled", visual_tokens=576,
    ).program()[0]  # fmt: skip
    found = evaluate(program)
    live = {op.name: float(row) for op, row in zip(found.ops, found.live, strict=True)}
    assert max(value for name, value in live.items() if "vision" not in name) == pytest.approx(
        measured, rel=0.01
    )


def tracked(run: Callable[[], Any]) -> Tracker:
    with fake_gpu() as tracker:
        run()
    return tracker


@pytest.mark.parametrize(
    ("dtype", "per_score"),
    # The kernel reads fp16 as it is; bf16 is copied to fp32 first.
    [("float16", 2 + 4 + 2), ("bfloat16", 2 + 4 + 4), ("float32", 4 + 4)],
)
def test_bytes_of_a_score_at_its_softmax(dtype: str, per_score: int) -> None:
    form, size = getattr(torch, dtype), 1024 * 512

    def run() -> None:
        scores = new(1024, 512, dtype=form)
        scores = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(form)

    assert tracked(run).peak_bytes == per_score * size
    name = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}[dtype]
    program = prepare("llama-2-7b", "h100-sxm", text_tokens=8, dtype=name).program()[0]
    values = {symbol.name: value for symbol, value in program.values.items()}
    assert values["bs"] == per_score


def test_tracker_by_hand() -> None:
    with fake_gpu() as tracker:
        first = new(1000)
        assert tracker.current_bytes == 2048  # 2000 B in blocks of 512
        second = first + first
        view = second.view(10, 100)[2:]
        del second
        assert tracker.current_bytes == 2 * 2048  # the view keeps all of it
        del view
        assert tracker.current_bytes == 2048
        first.add_(1)  # in place: nothing new
        assert tracker.peak_bytes == 2 * 2048
        assert [held.shape for held in tracker.at_peak] == [(1000,), (1000,)]
        tracker.restart()
        on_host = torch.empty(1000)
        assert tracker.peak_bytes == 2048 == tracker.current_bytes
        assert on_host.device.type == "cpu"


def test_tracker_of_a_gated_mlp_by_hand() -> None:
    """``down(silu(gate(x)) * up(x))``: x, and three of the wide arrays at the product."""
    rows, width, wide = 64, 256, 1024

    def run() -> None:
        x = new(rows, width)
        gate, up = new(wide, width), new(wide, width)
        torch.nn.functional.silu(x @ gate.T) * (x @ up.T)

    weights = 2 * 2 * wide * width
    assert tracked(run).peak_bytes == weights + 2 * rows * (width + 3 * wide)


def test_tracker_of_flash_attention_by_hand() -> None:
    """Queries, keys, values and output, and one fp32 number for each row of scores."""
    batch, heads, tokens, width = 2, 8, 128, 64

    def run() -> None:
        query, keys, values = (new(batch, heads, tokens, width) for _ in range(3))
        torch.nn.functional.scaled_dot_product_attention(query, keys, values, is_causal=True)

    arrays = 4 * 2 * batch * heads * tokens * width
    rows = 4 * batch * heads * tokens
    assert arrays + rows <= tracked(run).peak_bytes <= arrays + rows + 4 * 512
