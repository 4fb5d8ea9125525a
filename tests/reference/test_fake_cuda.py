"""CUDA paths where there is no GPU: fake tensors say that they are on one and hold no numbers.

`FakeTensorMode` works out formats, shapes and devices at true sizes; it raises an error where
tensors of two devices meet, and where the host would need a value.  What it lets pass, `Watch`
sees: copies between devices, indices on the CPU, generators of another device, products in
another format, and operators within which torch itself waits for a GPU.

What cannot be told in this way: no kernel is chosen, compiled or captured.  Attention runs as
torch's composition of operators, whichever backend is asked for; compiled code runs
uncompiled; what a graph would capture runs as it is, under a watch that lets nothing wait.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sympy import Integer

from costmodel import estimate
from costmodel.calibration.method_requests import request_of
from costmodel.compression.method import Context, parse
from costmodel.errors import SpecError
from costmodel.estimation import prepare
from costmodel.ops import exact
from costmodel.reference.harness.case import Case, Options
from costmodel.reference.harness.inputs import Inputs, Pool, Rotation
from costmodel.reference.harness.registry import load_suite, suite_names
from costmodel.reference.models.shapes import ModelShape, load_shape
from costmodel.reference.suites._methods import Run, runs_of
from costmodel.reference.suites.compression import method_case, params_text
from costmodel.symbols import sym

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import (  # noqa: E402
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from costmodel.reference import kmeans_fused  # noqa: E402
from costmodel.reference.methods import load_method, method_names  # noqa: E402
from costmodel.reference.methods.counting import waits_of  # noqa: E402
from costmodel.reference.methods.prumerge_plus import grid_step  # noqa: E402
from costmodel.reference.methods.visionzip import Budget  # noqa: E402
from costmodel.reference.models import runtimes  # noqa: E402
from costmodel.reference.models.base import DTYPES  # noqa: E402
from costmodel.reference.models.eager import build_eager  # noqa: E402
from costmodel.reference.models.fused import build_fused  # noqa: E402
from costmodel.reference.models.pruned import FastV, PyramidDrop  # noqa: E402

pytestmark = pytest.mark.verify

# With its number: torch asks the GPU that is not there which one "cuda" means.
GPU = "cuda:0"
TEXT, VISUAL, START = 64, 576, 35
MODELS = ("llava-1.5-7b", "llava-1.5-13b")
OUTLIERS = 32
COPIES = frozenset({"aten::_to_copy", "aten::copy_"})
PRODUCTS = frozenset(
    f"aten::{name}" for name in ("mm", "bmm", "addmm", "baddbmm", "convolution")
)  # fmt: skip
WAITING = (DataDependentOutputException, DynamicOutputShapeException)
_CUDA, _META = 1, 14  # c10::DeviceType


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Watches operators on fake tensors, and answers for the GPU where the host waits for it.

    Without an answer left the fake tensor's own error ends the call.

    Attributes
    ----------
    waits : int
        How often the host waited, copies between devices included.
    astray : list of str
        Operators that took or made a tensor on the CPU and are no copies, or took a random
        generator of another device.
    formats : set of torch.dtype
        Of what matrix products multiplied, attention's inner ones left out, which no fused
        kernel has, and products of two vectors, which rotary positions are made of.
    """

    def __init__(self, answers: Iterable[float] = ()) -> None:
        super().__init__()
        self.answers = iter(answers)
        self.waits, self.inside_attention = 0, False
        self.astray: list[str] = []
        self.formats: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, func._schema.name
        if not name.startswith("aten::"):
            return func(*args, **kwargs)
        waits = waits_of(func, args, kwargs)
        self.waits += waits
        answer = next(self.answers, None) if waits and name != "aten::isin" else None
        result = func(*args, **kwargs) if answer is None else answered(name, args, answer)
        made = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        self._look(name, tree_leaves((args, kwargs)), made)
        return result

    def _look(self, name: str, given: list[Any], made: list[Any]) -> None:
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        where = {one.device.type for one in (*tensors, *made)}
        if name in COPIES and len(where) > 1:
            self.waits += any(one.numel() for one in made)
        elif any(one.device.type == "cpu" and held(one) for one in (*tensors, *made)):
            self.astray.append(name)
        drawn = [one for one in given if isinstance(one, torch._C.Generator)]
        if any(Generator.devices[one._cdata] not in (GPU, "cuda") for one in drawn):
            self.astray.append(f"{name} of a generator elsewhere")
        if name in PRODUCTS and not self.inside_attention and tensors[-1].shape[-2:].numel() > 1:
            self.formats |= {one.dtype for one in tensors if one.shape[-1] > 1}


def held(tensor: Any) -> bool:
    """Whether a tensor has elements, and not one that stands for a number of Python."""
    return bool(tensor.ndim and tensor.numel())


def answered(name: str, args: Sequence[Any], answer: float) -> Any:
    """Return a scalar, or as many elements as the answer says of what values would select."""
    values = args[0]
    if name == "aten::_local_scalar_dense":
        return float(answer) if values.is_floating_point() else int(answer)
    if name == "aten::masked_select":
        return values.new_empty(int(answer))
    ((place, mask),) = [(i, one) for i, one in enumerate(args[1]) if one is not None]
    rest = values.shape[place + mask.ndim :]
    return values.new_empty((*values.shape[:place], int(answer), *rest))


class Generator(torch.Generator):  # type: ignore[misc, name-defined]
    """One of the CPU that says where it was meant to be: on a GPU there must be a GPU."""

    devices: dict[int, str] = {}  # noqa: RUF012
    alive: list[Any] = []  # noqa: RUF012

    def __new__(cls, device: Any = "cpu") -> Any:
        made = super().__new__(cls)
        # torch hands operators another object of the same generator.
        cls.devices[made._cdata] = str(device)
        cls.alive.append(made)
        return made


def replace_weights(module: Any, change: Callable[[Any], Any], recurse: bool = True) -> Any:
    """Change weights and buffers by new tensors: torch refuses to swap fake ones in place."""
    for part in module.modules():
        for key, weight in part._parameters.items():
            if weight is not None:
                part._parameters[key] = nn.Parameter(change(weight), weight.requires_grad)
        for key, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[key] = change(buffer)
    return module


def on_the_host(tensor: Any) -> Any:
    """Values of a copy on the host, in each row of which some stand out."""
    values = np.random.default_rng(0).random(tuple(tensor.shape), dtype=np.float32)
    values[..., :OUTLIERS] += 5
    return values


def guard_nothing() -> Any:
    """Let a torch without CUDA do nothing where it would choose a GPU, as on the meta device.

    Its Python bindings choose a tensor's device before they index or copy, fake or not.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (_META + 1)).in_dll(
        library, "_ZN3c104impl26device_guard_impl_registryE"
    )
    before = guards[_CUDA]
    guards[_CUDA] = before or guards[_META]
    return partial(guards.__setitem__, _CUDA, before)


@pytest.fixture(autouse=True)
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake tensors and stand-ins for what needs a real GPU."""
    undo = guard_nothing()
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(nn.Module, "_apply", replace_weights)
    monkeypatch.setattr(FakeTensor, "numpy", on_the_host, raising=False)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    # There is nothing to compile or capture for.
    monkeypatch.setattr(kmeans_fused, "_compiled", lambda step: step)
    monkeypatch.setattr(runtimes, "wrap", lambda run, *_, **__: run)
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", partial(fused_attention, attention)
    )
    with FakeTensorMode(), torch.no_grad():
        yield
    undo()
    Generator.devices.clear()
    Generator.alive.clear()


def fused_attention(
    real: Callable[..., Any], query: Any, keys: Any, values: Any, **rest: Any
) -> Any:
    """Check what every fused kernel of a GPU asks for, and run torch's composition instead."""
    mask = rest.get("attn_mask")
    assert len({one.dtype for one in (query, keys, values)}) == 1
    assert {one.stride(-1) for one in (query, keys, values)} == {1}
    assert query.shape[-1] % 8 == 0
    assert mask is None or mask.dtype in (torch.bool, query.dtype)
    assert not (rest.get("is_causal") and query.shape[2] != keys.shape[2])
    watch = torch.utils._python_dispatch._get_current_dispatch_mode()
    if not isinstance(watch, Watch):
        return real(query, keys, values, **rest)
    watch.inside_attention = True
    result = real(query, keys, values, **rest)
    watch.inside_attention = False
    return result


def check(result: Any, dtype: str, *shape: int) -> None:
    """Check device and format of all that a call returns, and the shape of its first tensor."""
    tensors = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
    assert tensors
    assert {str(one.device) for one in tensors} == {GPU}
    assert {one.dtype for one in tensors if one.is_floating_point()} <= {DTYPES[dtype]}
    assert not shape or tuple(tensors[0].shape) == shape


def runs(model: str) -> Iterator[Run]:
    """Runs of the suite, with fewer rounds of the same loop, and ways that it leaves out."""
    for run in runs_of(load_shape(model), VISUAL, Options(device="cuda")):
        loops = run.method == "prumerge" and run.variant == "released"
        many = run.params.get("iterations", 2) not in (2, 5) or run.kept == 144
        if not (run.method == "cluster" and many):
            yield replace(run, kept=17) if loops else run
    width, vision = load_shape(model).decoder.width, 1024
    several: dict[str, Any] = {"n_init": 2, "init_trials": 3, "order": "position", "iterations": 2}
    for variant in ("eager", "fused"):
        yield Run("cluster", variant, VISUAL, 16, width, {**several, "check": False})
        wide: dict[str, Any] = {"distances": "fp32", "check": False, "iterations": 0}
        yield Run("cluster", variant, VISUAL, 16, width, wide)
        yield Run("prumerge", variant.replace("eager", "released"), VISUAL, OUTLIERS + 1, vision)
    yield Run("cluster", "eager", VISUAL, 16, width, {**several, "check": True})
    yield Run("cluster", "sklearn", VISUAL, 16, width, {"iterations": 2})
    yield Run("visionzip", "released", VISUAL, 192, vision, {"heads": 16})
    yield Run("mbtf", "linear", VISUAL, VISUAL, vision, {"tower_dtype": "fp32"})


def answers(run: Run, batch: int) -> list[float]:
    """What the host reads in one call, in turn; empty where it asks for nothing."""
    if run.method == "cluster" and run.params.get("check", True):
        return [] if run.variant in ("fused", "compiled") else [1.0]
    if (run.method, run.variant) == ("visionzip", "released"):
        budget = Budget.of(run.kept)
        rest = run.tokens + 1 - budget.dominant
        moving, width = rest - budget.contextual, run.width
        return [batch * budget.dominant * width, batch * rest, batch * rest * width, moving, moving]
    if run.method == "prumerge" and run.params.get("adaptive", True) and run.variant == "fused":
        return [batch * OUTLIERS]
    if run.method == "prumerge+":
        # As released: whether a patch of the grid is an outlier, and where it is; else how many
        # outliers there are, and how many patches of the grid are none.
        return [0, 7] if run.variant == "released" else [OUTLIERS, 64]
    return []


GRID = len(range(0, VISUAL - 1, grid_step(OUTLIERS / VISUAL)))


def remaining(run: Run) -> int:
    """Tokens that come out, for the answers above."""
    if run.method == "prumerge+":
        return OUTLIERS + (GRID if run.variant == "released" else 64) + 1
    return run.kept


WORK_ON_HOST = {("cluster", "sklearn"), ("prumerge+", "released")}
"""Those that make tensors on the CPU."""


def copied(run: Run) -> bool:
    """Whether the host has a copy of what it decides by: no fake tensor's error tells."""
    own = run.params.get("adaptive", True)
    return run.method.startswith("prumerge") and run.variant == "released" and bool(own)


RUNS = [pytest.param(m, r, id=f"{m}-{r.method}-{r.variant}-{r.kept}-{params_text(r.params)}")
        for m in MODELS for r in runs(m)]  # fmt: skip


def prepared(run: Run, dtype: str, batch: int) -> Any:
    return load_method(run.method).prepare(method_case(run, GPU, dtype, batch))


def batches(run: Run) -> tuple[int, ...]:
    return (1, 4) if run.batched and run.method != "prumerge+" else (1,)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(("model", "run"), RUNS)
def test_methods(model: str, run: Run, dtype: str) -> None:
    for batch in batches(run):
        ready, given = prepared(run, dtype, batch), answers(run, batch)
        waits = bool(given) or copied(run)
        if given and not copied(run):
            with Watch(), pytest.raises(WAITING):
                ready.run()
        # Where nobody answers, that it returns at all says that it waits for nothing.
        with Watch(cycle(given)) as watch:
            made = ready.run()
        width = run.params.get("out_width", run.width)
        check(made, dtype, batch, remaining(run), int(width))
        assert bool(watch.waits) == waits
        assert not (waits and ready.graph_safe)
        assert bool(watch.astray) == ((run.method, run.variant) in WORK_ON_HOST)
        formats = {torch.float32} if run.params.get("distances") == "fp32" else {DTYPES[dtype]}
        assert watch.formats <= formats


def test_all_methods_are_here() -> None:
    there = {(run.method, run.variant) for run in runs(MODELS[0])}
    wanted = {(name, one) for name in method_names() for one in load_method(name).variants}
    assert there == wanted


def counted(run: Run, dtype: str, batch: int) -> Any:
    ready = prepared(run, dtype, batch)
    with Watch(cycle(answers(run, batch))) as watch:
        ready.run()
    return watch.waits


def planned(compress: str, dtype: str = "fp16", batch: int = 1) -> float:
    """Waits of the cost model's plan."""
    found = estimate(MODELS[0], "a100", text_tokens=TEXT, compress=compress, batch=batch,
                     dtype=dtype)  # fmt: skip
    return sum(op.host_syncs for op in found.ops if op.stage == "compression")


def asked(run: Run) -> str | None:
    """The run as the cost model has it; None where it has not."""
    if run.method in ("visionzip", "prumerge"):
        name = "k" if run.method == "visionzip" else "kept"
        fixed = not run.params.get("adaptive", True)
        return None if fixed else f"{run.method}:impl={run.variant},{name}={run.kept}"
    row = {"method": run.method, "variant": run.variant, "tokens": run.tokens, "kept": run.kept,
           "params": params_text(run.params)}  # fmt: skip
    try:
        return request_of(row)
    except SpecError:
        return None


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(run, id=asked(run))
        for run in runs(MODELS[0])
        if asked(run) and run.variant != "sklearn"
    ],
)
def test_waits_are_those_of_the_cost_model(run: Run) -> None:
    for batch in batches(run):
        assert counted(run, "fp16", batch) == planned(asked(run) or "", batch=batch)


@pytest.mark.parametrize(
    "variant",
    ["released", "fused"],
)
def test_waits_of_a_grid_are_those_of_the_cost_model(variant: str) -> None:
    run = Run("prumerge+", variant, VISUAL, 144, 1024)
    case = prepare(MODELS[0], "a100", text_tokens=TEXT)
    plan = parse(f"prumerge-plus:kept=144,impl={variant}").plan(
        Context(case.model, case.images, case.deployment)
    )
    sizes = {"b": 1, "t": 1, "ko": OUTLIERS, "kg": GRID, "kt": remaining(run)}
    values = {sym(name): size for name, size in sizes.items()}
    found = sum((op.host_syncs * op.repeat for op in plan.ops), Integer(0))
    assert counted(run, "fp16", 1) == exact(found, values)


def pixels(batch: int, dtype: str) -> Any:
    return torch.randn(batch, 3, 336, 336, device=GPU, dtype=DTYPES[dtype])


def text(batch: int, count: int = TEXT) -> Any:
    return torch.randint(32000, (batch, count), device=GPU)


def made(shape: ModelShape, code: str, dtype: str) -> Any:
    """Build a model of ``eager`` or ``fused`` code with one of its implementations of attention."""
    build, kind = code.split()
    model: Any = build_eager if build == "eager" else build_fused
    return model(shape, device=GPU, dtype=dtype, attention=kind)


CODES = ("eager sdpa", "fused flash", "eager eager", "fused sdpa", "fused eager")
# All layers of a model are alike: all of them in the default implementations, else the first two.
WHOLE = [(name, code, *pair) for name in MODELS for code in CODES[:2]
         for pair in (("bf16", 1), ("fp16", 4))]  # fmt: skip
CUT = [(f"{name}@2layers", code, dtype, batch) for name in MODELS for code in CODES
       for dtype in ("fp16", "bf16") for batch in (1, 4)]  # fmt: skip


@pytest.mark.parametrize(("name", "code", "dtype", "batch"), WHOLE + CUT)
def test_models(name: str, code: str, dtype: str, batch: int) -> None:
    shape = load_shape(name)
    model = made(shape, code, dtype)
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters
    cache = model.new_cache(batch, TEXT + VISUAL + 1)
    with Watch() as watch:
        features, pooled = model.encode(pixels(batch, dtype))
        tokens = model.projector(features)
        image, words = (model.prefill(one, text(batch), model.new_cache(batch, TEXT + VISUAL))
                        for one in (pixels(batch, dtype), None))  # fmt: skip
        ready = model.prefill(tokens, text(batch), cache)
        steps = [model.decode_step(text(batch, 1), cache, stays) for stays in (False, True)]
    check((features, pooled), dtype, batch, VISUAL, 1024)
    check(tokens, dtype, batch, VISUAL, shape.decoder.width)
    for done in (image, words, ready, *steps):
        check(done, dtype, batch, shape.decoder.vocab)
    assert set(cache.lengths) == {TEXT + VISUAL + 1}
    assert (watch.waits, watch.astray, watch.formats) == (0, [], {DTYPES[dtype]})


def drops(layers: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"fastv:k=144,layer=2,variant={variant}": FastV(2, 144, variant)
        for variant in ("paper", "released", "last-row")
    }
    for variant in ("released", "lean"):
        method = PyramidDrop.of_paper(layers, VISUAL, variant)
        found[f"pyramiddrop:variant={variant}"] = method
    return found


@pytest.mark.parametrize(("dtype", "batch"), [("fp16", 1), ("bf16", 4)])
@pytest.mark.parametrize("name", MODELS)
def test_models_that_drop_tokens_inside(name: str, dtype: str, batch: int) -> None:
    model, shape = build_fused(load_shape(name), device=GPU, dtype=dtype), load_shape(name)
    for compress, method in drops(shape.decoder.layers).items():
        waits = planned(compress, dtype, batch)
        assert bool(waits) != method.graph_safe
        cache = model.new_cache(batch, TEXT + VISUAL + 1)
        run = partial(model.prefill, pixels(batch, dtype), text(batch), cache, pruning=method)
        if waits:
            with Watch(), pytest.raises(WAITING):
                run()
        # Tokens that are no padding in each stage: of rows picked by a mask, and their number.
        stages = [TEXT + left for left in (576, 288, 144)] if waits else []
        with Watch(number for left in stages for number in [left] * 2 * batch) as watch:
            check(run(), dtype, batch, shape.decoder.vocab)
            step = model.decode_step(text(batch, 1), cache)
        check(step, dtype, batch, shape.decoder.vocab)
        assert watch.waits == waits
        assert (watch.astray, watch.formats) == ([], {DTYPES[dtype]})


def same_again(case: Case) -> bool:
    """Whether a case runs the same operators as another, more often or on other sizes."""
    if case.suite == "prefill":
        # What a graph would hold is the compiled code.
        some = case.notes["prompt_tokens"] in (128, 208, 640)
        return case.key["runtime"] == "cuda-graph" or not some
    if case.suite != "compression":
        return False
    run: Run = case.prepare.keywords["run"]  # type: ignore[attr-defined]
    batch = int(case.key["batch"])
    loops = run.variant == "sklearn" or (run.method, run.variant) == ("prumerge", "released")
    return batch > (1 if loops else 4) or run.params.get("iterations", 0) in (10, 20)


def captures(case: Case) -> bool:
    """Whether preparing a case captures a graph, for which there must be a GPU."""
    return case.suite == "launch" and case.key["runtime"] == "cuda-graph"


def read_back(case: Case) -> list[float]:
    """What the host reads in a case, in turn."""
    if case.suite == "launch":
        return [1.0] if case.key["op"] == "read_back" else []
    if case.suite == "compression":
        return answers(case.prepare.keywords["run"], int(case.key["batch"]))  # type: ignore[attr-defined]
    return []


def options(suite: str) -> Options:
    # More tokens are more rounds of the loops in some methods, and all layers are alike.
    tokens = (VISUAL,) if suite == "compression" else ()
    return Options(device="cuda", dtypes=("bf16",), models=(CUT[0][0],), tokens=tokens)


@pytest.mark.parametrize("name", suite_names())
def test_suites(name: str) -> None:
    pool = Pool(GPU)
    cases = load_suite(name).cases(options(name))
    chosen = [case for case in cases if not (captures(case) or same_again(case))]
    assert chosen
    for case in chosen:
        given, method = read_back(case), (case.key.get("method"), case.key.get("variant"))
        # As few input sets as there can be.
        inputs = Inputs(pool, case.dtype, Rotation(1, 1 << 62))
        with Watch(cycle(given)):
            ready = case.prepare(inputs)
        with Watch(cycle(given)) as watch, ready.context():
            result = ready.run(0)
        if name != "launch":
            check(result, case.dtype)
        assert bool(watch.waits) == bool(given), case.label
        assert bool(watch.astray) == (method in WORK_ON_HOST), case.label
        assert watch.formats <= {DTYPES[case.dtype]}, case.label
        assert not (watch.waits and ready.graph), case.label


LOOSE: dict[str, Callable[[Any], object]] = {
    "index on the CPU": lambda x: x[:, torch.arange(2)],
    "made on the CPU": lambda x: torch.arange(2).to(GPU),
    "generator of the CPU": lambda x: torch.rand(2, generator=torch.Generator(), device=GPU),
}


@pytest.mark.parametrize("call", LOOSE.values(), ids=LOOSE)
def test_what_lies_elsewhere_is_seen(call: Callable[[Any], object]) -> None:
    with Watch() as watch:
        call(torch.ones(3, 3, device=GPU))
    assert watch.astray


WAITS: dict[str, tuple[Callable[[Any], object], int]] = {
    "copy to the host": (lambda x: x.cpu(), 1),
    "copy of a list": (lambda x: torch.tensor([1, 2], device=GPU), 1),
    "isin": (lambda x: torch.isin(x, x), 2),
    "isin of unique values": (lambda x: torch.isin(x, x, assume_unique=True), 0),
    "isin of few": (lambda x: torch.isin(x, x[0, :3]), 0),
    "sum": (lambda x: x.sum(), 0),
}


@pytest.mark.parametrize(("call", "waits"), WAITS.values(), ids=WAITS)
def test_waits_that_fake_tensors_do_not_notice(call: Callable[[Any], object], waits: int) -> None:
    with Watch() as watch:
        call(torch.ones(9, 9, device=GPU))
    assert watch.waits == waits


def test_products_in_another_format_are_seen() -> None:
    half = torch.ones(3, 3, device=GPU, dtype=torch.float16)
    with Watch() as watch:
        half @ half
        half.float() @ half.float()
    assert watch.formats == {torch.float16, torch.float32}
