"""Suites: the shapes that their cases say, in the columns that readers know."""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from costmodel import reference
from costmodel.calibration.elementwise_bytes import OPERATORS
from costmodel.calibration.schema import KINDS
from costmodel.reference.harness.case import Case, Options
from costmodel.reference.harness.errors import MeasureError
from costmodel.reference.harness.inputs import Inputs, Pool, Rotation
from costmodel.reference.harness.registry import load_suite, suite_names
from costmodel.reference.harness.store import WHERE
from costmodel.reference.models.shapes import load_shape
from costmodel.reference.suites.attention import eager_attention
from costmodel.reference.suites.gemm import layers_of
from costmodel.reference.suites.memory_bound import OPS

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

FOLDER = Path(reference.__file__).parent
NAMES = ("gemm", "attention", "memory_bound", "launch")
OPTIONS = {
    "quick": Options(quick=True, dtypes=("fp32", "bf16")),
    "cpu": Options(dtypes=("fp32",)),
    "cuda": Options(device="cuda", dtypes=("fp16", "bf16")),
    "chosen": Options(models=("llama-3-8b",), tokens=(7,), quick=True),
}
ALLOWED = {"torch", "transformers", "numpy", "pandas", "pyarrow"}


def _inputs(dtype: str = "fp32") -> Inputs:
    return Inputs(Pool("cpu"), dtype, Rotation(1 << 16, 1 << 20))


def _quick(name: str) -> list[Case]:
    return list(load_suite(name).cases(Options(quick=True)))


def test_suites_are_found_by_name() -> None:
    assert set(NAMES) <= set(suite_names())
    for name in NAMES:
        assert load_suite(name).name == name
    with pytest.raises(MeasureError, match=r"unknown suite 'gem'. Did you mean gemm\?"):
        load_suite("gem")


def test_harness_and_suites_import_nothing_but_what_a_gpu_box_has() -> None:
    for path in [*FOLDER.glob("harness/*.py"), *(FOLDER / "suites" / f"{n}.py" for n in NAMES)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module).partition(".")[0]]
            else:
                continue
            assert set(names) <= ALLOWED | set(sys.stdlib_module_names), path


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_cases_have_the_columns_of_the_schema(name: str, options: Options) -> None:
    cases = load_suite(name).cases(options)
    assert cases
    for case in cases:
        kind = KINDS[case.kind]
        needed = {column.name for column in kind.columns if column.needed and column.key}
        assert needed - set(WHERE) <= set(case.key), case.label
        assert set(case.key) <= set(kind.key), case.label
        assert case.dtype in options.dtypes
        assert case.suite == name
        assert not set(case.notes) & set(case.key)
    keys = [(case.kind, *sorted(case.key.items())) for case in cases]
    assert len(set(keys)) == len(keys)


def test_token_counts_and_models_can_be_chosen() -> None:
    cases = load_suite("gemm").cases(OPTIONS["chosen"])
    assert {case.key["m"] for case in cases} == {7}
    assert {case.key["model"] for case in cases} == {"llama-3-8b"}
    assert {(c.key["n"], c.key["k"]) for c in cases} >= {(28672, 4096), (128256, 4096)}


def test_layers_are_those_of_a_transformers_decoder() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'measure'")
    shape = load_shape("llama-3-8b").decoder
    config = transformers.LlamaConfig(
        hidden_size=shape.width, intermediate_size=shape.mlp_width, vocab_size=shape.vocab,
        num_hidden_layers=1, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    theirs = {
        (module.out_features, module.in_features)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    }
    ours = {(n, k) for _, n, k in layers_of(load_shape("llama-3-8b"))}
    fused = {(shape.q_width + 2 * shape.kv_width, shape.width), (2 * shape.mlp_width, shape.width)}
    assert ours == theirs | fused


@pytest.mark.parametrize("case", _quick("gemm")[::7], ids=lambda case: case.label)
def test_products_have_the_work_and_size_they_say(case: Case) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    m, n, k = (int(case.key[name]) for name in "mnk")
    runnable = case.prepare(_inputs())
    with FlopCounterMode(display=False) as counter:
        runnable.run(0)
    assert counter.get_total_flops() == 2 * m * n * k
    assert runnable.set_bytes == 4 * (m * n + n * k + m * k)


def test_products_are_right() -> None:
    case = _quick("gemm")[20]
    made: list[Any] = []
    inputs = _inputs()
    normal = inputs.normal
    inputs.normal = lambda *shape: made.append(normal(*shape)) or made[-1]  # type: ignore[method-assign,func-returns-value]
    y = case.prepare(inputs).run(0)
    assert torch.allclose(y, made[0] @ made[1].T, atol=1e-4)


@pytest.mark.parametrize("case", _quick("attention")[::3], ids=lambda case: case.label)
def test_attention_is_what_its_formula_says(case: Case) -> None:
    key = {name: int(case.key[name]) for name in case.key if name not in ("dtype", "kernel")}
    made: list[Any] = []
    inputs = _inputs()
    normal = inputs.normal
    inputs.normal = lambda *shape: made.append(normal(*shape)) or made[-1]  # type: ignore[method-assign,func-returns-value]
    runnable = case.prepare(inputs)
    with runnable.context():
        found: Any = runnable.run(0)
    q, k, v = made[:3]
    if case.kind != "attention_decode":
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    shape = (key["batch"], key["heads"], key["q_len"], key["head_dim"])
    assert tuple(found.shape) == tuple(q.shape) == shape
    assert k.shape[1:] == (key["kv_heads"], key["kv_len"], key["head_dim"])
    expected = _formula(q, k, v, masked=case.kind == "attention_prefill")
    assert torch.allclose(found.double(), expected, atol=1e-5)


def _formula(q: Any, k: Any, v: Any, masked: bool) -> Any:
    """Attention of every head and query, one by one, in double precision."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                end = i + 1 if masked else k.shape[2]
                keys, values = (x[b, h // group, :end].double() for x in (k, v))
                scores = keys @ q[b, h, i].double() / math.sqrt(q.shape[3])
                out[b, h, i] = torch.softmax(scores, 0) @ values
    return out


def test_eager_attention_serves_grouped_queries() -> None:
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    found = eager_attention(q, k, v, None)
    assert torch.allclose(found.double(), _formula(q, k, v, masked=False), atol=1e-5)


def test_memory_bound_operators_are_known_to_the_readers() -> None:
    assert {str(case.key["op"]) for case in _quick("memory_bound")} <= set(OPERATORS)


@pytest.mark.parametrize("name", OPS)
def test_memory_bound_operators_run_on_all_of_their_rows(name: str) -> None:
    rows, cols = 24, 40
    made = OPS[name].make(_inputs(), rows, cols)
    found = OPS[name].call(*made)
    if name == "topk":
        assert tuple(found.values.shape) == (rows, cols // 4)
    elif OPERATORS[name].kind in ("argmin", "reduction", "scatter"):
        assert found.shape[0] in (rows, rows // 8)
    else:
        assert tuple(found.shape) == (rows, cols)


def test_a_short_run_has_all_operators_of_the_shapes_it_has() -> None:
    suite = load_suite("memory_bound")
    cases = list(suite.cases(Options(tokens=(1, 8, 100, 577, 1024), models=("llava-small",))))
    assert suite.ordered
    for count in (60, 100, 150):
        # The last shape may be cut.
        shapes = [(case.key["rows"], case.key["cols"]) for case in cases[:count]]
        done = [case for case in cases[:count] if case.key["rows"] != shapes[-1][0]]
        for op in ("argmin", "sum"):
            found = {(c.key["rows"], c.key["cols"]) for c in done if c.key["op"] == op}
            assert found
            assert found <= {(c.key["rows"], c.key["cols"]) for c in done if c.key["op"] == "topk"}
        sizes = [int(rows) * int(cols) for rows, cols in shapes]
        assert max(sizes) > 1000 * min(sizes)


def test_rows_and_their_lengths_are_timed_apart() -> None:
    cases = load_suite("memory_bound").cases(Options(models=("llava-small",)))
    for name in ("softmax", "argmin", "topk", "gather", "rmsnorm"):
        shapes = {(c.key["rows"], c.key["cols"]) for c in cases if c.key["op"] == name}
        lengths = [{rows for rows, cols in shapes if cols == one} for _, one in shapes]
        assert sum(len(rows) > 1 for rows in lengths) >= 9
        assert len({cols for _, cols in shapes}) >= 5


def test_norm_activation_and_rotary_are_those_of_transformers() -> None:
    pytest.importorskip("transformers", reason="needs the extra 'measure'")
    from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

    from costmodel.reference.suites.memory_bound import _rotary

    x, gate = torch.randn(6, 32), torch.randn(6, 32)
    norm = LlamaRMSNorm(32, eps=1e-6)
    norm.weight.data = torch.randn(32)
    assert torch.allclose(OPS["rmsnorm"].call(x, norm.weight), norm(x), atol=1e-5)
    assert torch.allclose(OPS["silu_mul"].call(gate, x), gate * torch.sigmoid(gate) * x, atol=1e-6)
    q, cos, sin = torch.randn(6, 3, 8), torch.randn(6, 1, 8), torch.randn(6, 1, 8)
    theirs, _ = apply_rotary_pos_emb(
        q[None], q[None], cos[None, :, 0], sin[None, :, 0], unsqueeze_dim=2
    )
    assert torch.allclose(_rotary(q, cos, sin), theirs[0], atol=1e-6)
