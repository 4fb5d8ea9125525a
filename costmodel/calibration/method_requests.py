"""What a measured run of a compression method is in the options of the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from costmodel.compression.method import parse
from costmodel.errors import SpecError

__all__ = ["params_of", "request_of"]


class _Plan(NamedTuple):
    """How a row of a method is asked of the cost model."""

    variants: Mapping[str, Mapping[str, str]]
    budget: Callable[[Mapping[Any, Any]], Mapping[str, str]]


def _kept(row: Mapping[Any, Any]) -> dict[str, str]:
    return {"k": str(int(row["kept"]))}


def _window(row: Mapping[Any, Any]) -> dict[str, str]:
    before, after = int(row["tokens"]), int(row["kept"])
    window = math.isqrt(before // after)
    if window * window * after != before:
        raise SpecError(f"kept {after}: no window of whole tokens leaves that many of {before}")
    return {"window": str(window)}


def _all(row: Mapping[Any, Any]) -> dict[str, str]:
    if int(row["kept"]) != int(row["tokens"]):
        raise SpecError(f"kept {row['kept']}: the method keeps all {row['tokens']} tokens")
    return {}


_PLANS: Mapping[str, _Plan] = {
    "random": _Plan({"batched": {}}, _kept),
    "spatial": _Plan({"even": {}, "grid": {}}, _kept),
    "cluster": _Plan(
        {
            "eager": {"impl": "eager"},
            "fused": {"impl": "fused"},
            "compiled": {"impl": "compiled"},
            "sklearn": {"impl": "sklearn"},
        },
        _kept,
    ),
    "avgpool": _Plan({"pool": {}, "mean": {}}, _window),
    "stf": _Plan({"linear": {}}, _window),
    "mbtf": _Plan({"linear": {}}, _all),
    "mbtf+stf": _Plan({"linear": {}}, _window),
}
"""Methods that have both a plan and a measured counterpart: implementations that the plan counts,
with the options that ask for them, and how tokens before and after become an option."""


def request_of(row: Mapping[Any, Any]) -> str:
    """Return the compression that a row measured, as the command line has it.

    Parameters
    ----------
    row : mapping
        Columns of kind ``compression``.

    Returns
    -------
    str
        ``METHOD:key=value,...``

    Raises
    ------
    CostModelError
        If the cost model lacks the method, the implementation or a parameter.

    Examples
    --------
    >>> request_of({"method": "cluster", "variant": "fused", "tokens": 576, "kept": 64,
    ...             "params": "iterations=5"})
    'cluster:impl=fused,iterations=5,k=64'
    >>> request_of({"method": "avgpool", "variant": "", "tokens": 576, "kept": 144, "params": ""})
    'avgpool:window=2'
    """
    name = str(row["method"])
    if name not in _PLANS:
        raise SpecError(f"method {name!r} has no plan to compare with, only {', '.join(_PLANS)}")
    plan = _PLANS[name]
    variant = str(row.get("variant", ""))
    if variant and variant not in plan.variants:
        known = ", ".join(plan.variants)
        raise SpecError(f"variant {variant!r} of {name} is not what the plan counts ({known})")
    given = params_of(str(row.get("params", "")))
    if str(given.pop("distances", "input")) != "input":
        raise SpecError("distances in another format than the tokens are not in the plan")
    given.pop("out_width", None)
    # Its only effect is how many iterations run, and that is counted.
    given.pop("tolerance", None)
    options = {**plan.variants.get(variant, {}), **given, **plan.budget(row)}
    options = {key: value for key, value in options.items() if value not in ("", "None")}
    asked = f"{name}:" + ",".join(f"{key}={options[key]}" for key in sorted(options))
    parse(asked)
    return asked


def params_of(text: str) -> dict[str, str]:
    """Return ``key=value,...`` as a mapping.

    Raises
    ------
    SpecError
        If an item is no ``key=value``.
    """
    items = [item.partition("=") for item in filter(None, text.split(","))]
    if wrong := [key for key, equals, _ in items if not equals]:
        raise SpecError(f"params {text!r}: expected key=value, got {wrong[0]!r}")
    return {key.strip(): value.strip() for key, _, value in items}
