"""Compiled code is compiled for each shape, however many there are, or fails."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.compiling import compile_each_shape, forget_compiled  # noqa: E402

pytestmark = pytest.mark.verify


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[tuple[int, ...]]]:
    shapes: list[tuple[int, ...]] = []

    def backend(graph: Any, inputs: Any) -> Any:
        shapes.append(tuple(inputs[0].shape))
        return graph.forward

    forget_compiled()
    return compile_each_shape(lambda x: x.sin() + 1, backend=backend), shapes


def test_each_shape_is_compiled_once_and_with_its_own_sizes(compiled: Any) -> None:
    call, shapes = compiled
    # More than the eight versions after which torch would fall back to uncompiled code.
    sizes = range(2, 22)
    for size in (*sizes, *sizes):
        call(torch.ones(size))
    assert shapes == [(size,) for size in sizes]


def test_code_that_does_not_compile_is_an_error() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise ValueError("no such instruction")

    call = compile_each_shape(lambda x: x.sin() + 1, backend=broken)
    with pytest.raises(Exception, match="no such instruction"):
        call(torch.ones(3))


def test_what_is_forgotten_is_compiled_again(compiled: Any) -> None:
    call, shapes = compiled
    call(torch.ones(2))
    forget_compiled()
    call(torch.ones(2))
    assert shapes == [(2,), (2,)]
