"""Names and parameters of methods as people write them."""

from __future__ import annotations

import pytest

from costmodel.compression.method import list_methods, load_method, parse, request
from costmodel.compression.selection import BudgetParams
from costmodel.errors import CostModelError, SpecError, UnknownNameError


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("none", "none"),
        ("cluster:k=64", "cluster:k=64"),
        ("CLUSTER:k=64", "cluster:k=64"),
        (" cluster : k = 64 , iterations = 5 ", "cluster:k=64,iterations=5"),
        ("cluster:k=64,n-init=2", "cluster:k=64,n_init=2"),
        ("cluster:k=64,,", "cluster:k=64"),
        ("random:retention=0.25", "random:retention=0.25"),
        ("random:retention=1", "random:retention=1.0"),
        ("cluster:k=64,check=true", "cluster:k=64,check=True"),
        ("avgpool", "avgpool"),
        ("avgpool:", "avgpool"),
        # In the order of the specification, whatever the order given.
        ("mbtf+stf:window=3,blocks=4", "mbtf+stf:blocks=4,window=3"),
    ],
)
def test_good_input(text: str, label: str) -> None:
    found = parse(text)
    assert found.label == label
    # The label itself can be pasted back.
    assert parse(found.label) == found


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("clutser:k=3", UnknownNameError, r"unknown method 'clutser'\. Did you mean cluster\?"),
        ("", UnknownNameError, r"unknown method ''\. Known: avgpool"),
        (":k=3", UnknownNameError, "unknown method ''"),
        ("cluster;k=3", UnknownNameError, "Did you mean cluster"),
        ("mbtf-stf", UnknownNameError, r"Did you mean mbtf\+stf"),
        ("cluster:kk=3", SpecError, "unknown key 'kk', did you mean 'k'"),
        ("cluster:position=between,k=3", SpecError, "'after_projector' or 'before_projector'"),
        ("none:k=3", SpecError, "unknown key 'k'"),
        ("cluster:k", SpecError, "expected key=value, got 'k'"),
        ("cluster:=3", SpecError, "expected key=value, got '=3'"),
        ("cluster:k=", SpecError, r"k: .*valid integer"),
        ("cluster:k=abc", SpecError, r"k: .*valid integer.*got 'abc'"),
        ("cluster:k=1.5", SpecError, r"k: .*valid integer"),
        ("cluster:k=3:4", SpecError, r"k: .*valid integer"),
        ("cluster:k=3,k=4", SpecError, "key 'k' is given twice"),
        ("cluster:n-init=1,n_init=2,k=3", SpecError, "key 'n_init' is given twice"),
        ("cluster:k=3,iterations=-1", SpecError, "greater than or equal to 0"),
        ("cluster:k=3,n_init=0", SpecError, "greater than 0"),
        ("cluster:k=3,init_trials=0", SpecError, "greater than 0"),
        ("cluster:k=3,impl=gpu", SpecError, "'eager', 'fused', 'compiled' or 'sklearn'"),
        ("cluster:k=3,check=maybe", SpecError, "check: "),
        ("avgpool:window=0", SpecError, "greater than 0"),
        ("stf:window=x", SpecError, "valid integer"),
        ("mbtf:blocks=0", SpecError, "greater than 0"),
        ("mbtf:hidden=-1", SpecError, "greater than 0"),
    ],
)
def test_bad_input(text: str, error: type[CostModelError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


KEEPING = [name for name in list_methods() if issubclass(load_method(name).Params, BudgetParams)]


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("", "give exactly one of k and retention"),
        ("k=3,retention=0.5", "give exactly one of k and retention"),
        ("k=0", "greater than 0"),
        ("k=-3", "greater than 0"),
        ("retention=0", "greater than 0"),
        ("retention=-0.1", "greater than 0"),
        ("retention=1.5", "less than or equal to 1"),
        ("retention=nan", "finite number"),
        ("retention=inf", "finite number"),
        ("retention=half", "valid number"),
    ],
)
def test_bad_budgets(name: str, values: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(f"{name}:{values}")


def test_there_are_methods_that_keep_a_budget() -> None:
    assert set(KEEPING) >= {"cluster", "random", "spatial", "saliency", "divprune"}


def test_request_checks_values_of_python_too() -> None:
    assert request(load_method("random"), {"k": 5}).label == "random:k=5"
    with pytest.raises(SpecError, match="unknown key"):
        request(load_method("random"), {"kept": 5})


@pytest.mark.parametrize("name", list_methods())
def test_a_method_is_loaded_by_its_listed_name(name: str) -> None:
    assert load_method(name).name == name
