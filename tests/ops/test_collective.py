"""Bytes that a ring sends, by hand and by simulation."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import pytest

from costmodel.ops import collective
from costmodel.symbols import sym


def sent_by_one_device(op: str, devices: int, message: int) -> Fraction:
    """Count the chunks of message / devices that a device passes on in a ring."""
    chunk = Fraction(message, devices)
    reduce_scatter = [chunk for _ in range(devices - 1)] if op == "all_reduce" else []
    all_gather = [chunk for _ in range(devices - 1)]
    return sum(reduce_scatter + all_gather, start=Fraction(0))


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather"])
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_link_bytes_are_those_of_a_ring(
    kind: Literal["all_reduce", "all_gather"], devices: int
) -> None:
    op = collective("c", "llm", op=kind, rows=sym("s"), cols=sym("d"))
    values = {sym("s"): 3, sym("d"): 4096, sym("ba"): 2, sym("N"): devices}
    shape = {name: size.subs(values) for name, size in op.shape}
    assert shape["bytes"] == 3 * 4096 * 2
    assert shape["link_bytes"] == sent_by_one_device(kind, devices, 3 * 4096 * 2)
    assert shape["devices"] == devices
    assert op.kind == "collective"


def test_all_reduce_of_two_devices_by_hand() -> None:
    op = collective("c", "llm", op="all_reduce", rows=sym("s"), cols=sym("d"))
    values = {sym("s"): 640, sym("d"): 4096, sym("ba"): 2, sym("N"): 2}
    # 2 (N - 1) / N = 1: the whole message, 640 * 4096 * 2 bytes.
    assert dict(op.shape)["link_bytes"].subs(values) == 5_242_880
    assert op.traffic.total.subs(values) == 2 * 5_242_880
    # One device adds half of the elements.
    assert op.flops.subs(values) == 640 * 4096 // 2


def test_all_gather_adds_nothing() -> None:
    assert collective("c", "llm", op="all_gather", rows=sym("s"), cols=sym("d")).flops == 0
