"""Every formula speaks the vocabulary of the symbol table."""

from __future__ import annotations

import ast
import inspect
from functools import lru_cache

import pytest
from sympy import Expr, Symbol

from costmodel import symbols
from costmodel.catalog.models_io import list_models
from costmodel.compression.method import list_methods
from costmodel.errors import CostModelError
from costmodel.estimation import prepare
from costmodel.program import Program
from costmodel.symbols import TABLE, SymbolInfo, indexed, info, sym

RUNTIMES = ("eager", "cuda-graph")
NEED_A_BUDGET = (
    "cdpruner", "cluster", "divprune", "holov", "random", "saliency", "saliency-cluster", "spatial",
)  # fmt: skip
VARIANTS = (
    *(f"{name}:k=16" if name in NEED_A_BUDGET else name for name in list_methods()),
    "cluster:k=16,impl=sklearn,order=position",
    "random:k=16,position=before_projector",
    "avgpool:position=before_projector",
    "saliency:k=16,variant=layer,layer=2,then=restart",
    "saliency-cluster:k=16,rule=rest",
)


@lru_cache
def program(model: str, method: str, runtime: str, attention: str, tp: int) -> Program | None:
    """Build the program, or return None where the model cannot take the method."""
    images = ((672, 672), (336, 336)) if "next" in model else ()
    try:
        return prepare(
            model, "a100-80gb-sxm", text_tokens=64, compress=method, runtime=runtime,
            attention=attention, tp=tp, images=images,
        ).program()[0]  # fmt: skip
    except CostModelError:
        return None


def expressions(found: Program) -> list[Expr]:
    collected: list[Expr] = []
    for op in found.ops:
        collected += [op.flops, op.repeat, op.launches, op.host_syncs, op.live]
        collected += [size for _, size in op.shape]
        traffic = op.traffic
        collected += [traffic.weights, traffic.act_in, traffic.act_out]
        collected += [traffic.kv_read, traffic.kv_write]
    for weights in found.weights:
        collected += [weights.count, weights.shards]
    for group in found.cache:
        collected += [group.tokens, group.bytes]
    for relations in (found.derived, found.derived_decode):
        collected += [*relations.keys(), *relations.values()]
    return [*collected, *found.values]


def symbols_of(found: Program) -> set[Symbol]:
    return set().union(*(expression.free_symbols for expression in expressions(found)))


@pytest.mark.parametrize("model", list_models())
def test_every_symbol_of_every_formula_is_the_one_of_the_table(model: str) -> None:
    cases = [(runtime, "flash", 1) for runtime in RUNTIMES] + [("eager", "eager", 2)]
    built = [program(model, method, *case) for method in VARIANTS for case in cases]
    assert built[VARIANTS.index("none") * len(cases)] is not None
    for found in filter(None, built):
        for symbol in symbols_of(found):
            assert symbol is sym(symbol.name)
            assert info(symbol).name == symbol.name.partition("_")[0]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_symbol_of_an_operator_has_a_value_or_a_relation(phase: str) -> None:
    for method in VARIANTS:
        found = program("llava-1.5-7b", method, "eager", "sdpa", 1)
        assert found is not None
        known = found.values.keys() | found.relations("decode" if phase == "decode" else "prefill")
        for op in found.phase_ops("decode" if phase == "decode" else "prefill"):
            assert op.free_symbols <= known, op.name


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: row.name)
def test_a_row_is_complete(row: SymbolInfo) -> None:
    for text in (row.name, row.latex, row.meaning, row.unit, row.group):
        assert text
        assert text == text.strip()
    assert "_" not in row.name, "an underscore separates a symbol from its index"
    assert TABLE[row.name] is row


def test_no_name_or_latex_or_meaning_is_used_twice() -> None:
    for column in ("name", "latex", "meaning"):
        seen = [getattr(row, column) for row in TABLE.values()]
        assert sorted(seen) == sorted(set(seen))


def test_no_row_is_written_twice() -> None:
    # The dictionary drops an earlier row of the same name silently; the source does not.
    tree = ast.parse(inspect.getsource(symbols))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    rows = [
        argument.elts[0].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "_rows"
        for argument in call.args
        if isinstance(argument, ast.Tuple) and isinstance(argument.elts[0], ast.Constant)
    ]
    assert rows == list(TABLE)


def test_every_symbol_of_the_table_is_used_by_some_program() -> None:
    used: set[str] = set()
    for model in list_models():
        for method in VARIANTS:
            for case in (("eager", "flash", 1), ("eager", "eager", 2)):
                found = program(model, method, *case)
                if found is not None:
                    used |= {symbol.name.partition("_")[0] for symbol in symbols_of(found)}
    # Token counts that only methods inside the language model need.
    assert set(TABLE) - used <= {"sk", "sm", "sa"}


def test_symbols_are_made_once_and_positive_unless_they_may_be_zero() -> None:
    assert sym("d") is sym("d")
    assert sym("d").is_positive
    assert sym("p").is_nonnegative
    assert sym("p").is_positive is None
    assert sym("p_3").is_positive is None


def test_indexed_keeps_the_plain_name_of_a_single_group() -> None:
    assert indexed("s", 0, 1) is sym("s")
    assert indexed("s", 2, 3) is sym("s_2")
    assert info(sym("s_2")) is TABLE["s"]


@pytest.mark.parametrize("name", ["nothing", "s_x", "xx_1", ""])
def test_a_name_outside_the_table_is_no_symbol(name: str) -> None:
    with pytest.raises(KeyError, match="not in the table"):
        sym(name)
