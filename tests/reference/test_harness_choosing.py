"""Which cases a condition leaves."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.harness.case import Options  # noqa: E402
from costmodel.reference.harness.choosing import chosen  # noqa: E402
from costmodel.reference.harness.registry import load_suite  # noqa: E402

pytestmark = pytest.mark.verify

CASES = load_suite("prefill").cases(Options(device="cuda", models=("llava-tiny",)))


def test_conditions_on_several_columns_all_hold_and_patterns_of_one_add_up() -> None:
    where = ["runtime=eager", "stage=ttft", "compress=random*", "compress=cluster*fused*"]
    left = chosen(CASES, where)
    assert left == [
        case
        for case in CASES
        if case.key["runtime"] == "eager"
        and case.key["stage"] == "ttft"
        and str(case.key["compress"]).startswith(("random", "cluster:impl=fused"))
    ]
    assert 0 < len(left) < len(CASES)
    assert any("fused" in str(case.key["compress"]) for case in left)


def test_nothing_asked_leaves_all_and_an_empty_value_is_a_value() -> None:
    assert chosen(CASES, []) == CASES
    plain = chosen(CASES, ["compress="])
    assert {case.key["compress"] for case in plain} == {""}
    assert len(plain) < len(CASES)
