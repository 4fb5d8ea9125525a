"""What a break-even can be solved for: numbers of the workload, and a method's whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic.fields import FieldInfo

from costmodel.case import Case, prepare
from costmodel.compression.composition import Chain, Compression, parse_compression
from costmodel.compression.method import Method, Request, request, split
from costmodel.errors import InputError, UnknownNameError
from costmodel.specs.workload import MAX_BATCH, MAX_TOKENS

__all__ = ["AXES", "Parameter", "find_parameter", "with_value"]

AXES = {"batch": "b", "text_tokens": "T", "visual_tokens": None}
"""Numbers of the workload, with the symbol of the program that they set alone."""

_LIMITS = {"batch": MAX_BATCH, "text_tokens": MAX_TOKENS, "visual_tokens": MAX_TOKENS}
_HIGH = {"batch": 64, "text_tokens": 4096}
_HIGH_OF_METHOD = 256
# Every value of a method's parameter is a program of its own.
_MOST_VALUES = 20_000
# What keeps the same tokens as a count: the two cannot be given together.
_INSTEAD = {"k": "retention"}


@dataclass(frozen=True)
class Parameter:
    """A whole number of the question.

    Attributes
    ----------
    name : str
        One of `AXES`, or a parameter of a method.
    position : int, optional
        Which method of the compression has it; None for one of `AXES`.
    low, high : int
        Range that is searched, both included.
    """

    name: str
    position: int | None
    low: int
    high: int

    @property
    def symbol(self) -> str | None:
        """Symbol of the program that the parameter sets, and sets alone."""
        return AXES.get(self.name) if self.position is None else None


def find_parameter(
    model: Any,
    gpu: Any,
    compress: str | Sequence[str],
    name: str,
    span: tuple[int, int] | None = None,
    **options: Any,
) -> tuple[Case, Parameter]:
    """Return the prepared case and the parameter that `name` means.

    Parameters
    ----------
    model, gpu, **options
        As in `costmodel.prepare`.
    compress : str or sequence of str
        The method; it need not set the parameter that is solved for.
    name : str
        ``batch``, ``text_tokens``, ``visual_tokens``, a whole-number parameter of the method,
        or ``METHOD.PARAMETER`` where several methods have it.
    span : (int, int), optional
        Range that is searched; by default the tokens of an image for a number of tokens kept,
        up to 64 for a batch, 4,096 text tokens, twice the visual tokens, and 256 otherwise.

    Returns
    -------
    tuple of Case and Parameter

    Raises
    ------
    UnknownNameError
        If neither the workload nor the method has such a parameter.
    InputError
        If the range is empty, or several methods have the parameter.
    """
    wanted = name.strip().replace("-", "_")
    parts = [compress] if isinstance(compress, str) else list(compress)
    texts = [text for part in parts for text in part.split(" then ")]
    asked = [split(text) for text in texts]
    position = None if wanted in AXES else _position(asked, wanted)
    wanted = wanted.rpartition(".")[2]
    low, high = span or (1, 0)
    if position is not None:
        method, values = asked[position]
        values.pop(_INSTEAD.get(wanted, ""), None)
        values.setdefault(wanted, str(low))
        found = [request(method, values) for method, values in asked]
        case = prepare(model, gpu, compress=parse_compression(found), **options)
        if span is None:
            # A model without images is not a matter of the range.
            case.program()
            low, high = _range(case, method.Params.model_fields[wanted], wanted)
        return case, _checked(Parameter(wanted, position, low, high))
    case = prepare(model, gpu, compress=compress, **options)
    if span is None:
        tokens = case.layout.tokens if case.layout is not None else 0
        high = _HIGH.get(wanted, 2 * tokens)
    return case, _checked(Parameter(wanted, None, low, high))


def with_value(case: Case, parameter: Parameter, value: int) -> Case:
    """Return the case with another value of the parameter.

    Raises
    ------
    CostModelError
        If the method or the model cannot do this.
    """
    if parameter.position is None:
        workload = case.workload
        if parameter.name != "visual_tokens":
            return replace(case, workload=workload.model_copy(update={parameter.name: value}))
        return prepare(
            case.model, case.gpu, text_tokens=workload.text_tokens, visual_tokens=value,
            output_tokens=workload.output_tokens, batch=workload.batch, compress=case.request,
            time_model=case.time_model, **case.deployment.model_dump(),
        )  # fmt: skip
    requests = list(_requests(case.request))
    old = requests[parameter.position]
    given = old.params.model_dump(exclude_unset=True, exclude_none=True)
    requests[parameter.position] = request(old.method, {**given, parameter.name: value})
    chosen = Chain(tuple(requests)) if isinstance(case.request, Chain) else requests[0]
    return replace(case, request=chosen)


def _requests(compression: Compression | None) -> tuple[Request, ...]:
    if isinstance(compression, Chain):
        return compression.requests
    return (compression,) if compression is not None else ()


def _position(asked: Sequence[tuple[Method, dict[str, str]]], wanted: str) -> int:
    owner, _, name = wanted.rpartition(".")
    having = [
        index for index, (method, _) in enumerate(asked)
        if name in _whole_numbers(method) and owner in ("", method.name)
    ]  # fmt: skip
    if not having:
        own = [name for method, _ in asked for name in _whole_numbers(method)]
        raise UnknownNameError(
            "parameter to solve for", wanted, [*AXES, *own],
            f"Whole numbers of the workload and of {' and '.join(m.name for m, _ in asked)}.",
        )  # fmt: skip
    if len(having) > 1:
        choices = " or ".join(f"{asked[index][0].name}.{name}" for index in having)
        raise InputError("solve", wanted, f"one method's parameter: {choices}")
    return having[0]


def _whole_numbers(method: Method) -> list[str]:
    fields = method.Params.model_fields.items()
    return [name for name, field in fields if int in _leaves(field.annotation)]


def _leaves(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [annotation]


def _range(case: Case, field: FieldInfo, name: str) -> tuple[int, int]:
    limits: dict[str, Any] = {}
    for item in field.metadata:
        limits |= {
            key: getattr(item, key) for key in ("ge", "gt", "le", "lt") if hasattr(item, key)
        }
    low = int(limits.get("ge", limits.get("gt", 0) + 1))
    if name == "k":
        return low, max((group.layout.features for group in case.images), default=1)
    return low, int(min(limits.get("le", _HIGH_OF_METHOD), _HIGH_OF_METHOD))


def _checked(parameter: Parameter) -> Parameter:
    most = _LIMITS.get(parameter.name, MAX_TOKENS)
    least = 1 if parameter.position is None else 0
    if not least <= parameter.low < parameter.high <= most:
        raise InputError(
            "range", f"{parameter.low}:{parameter.high}",
            f"LOW:HIGH with {least} <= LOW < HIGH <= {most:,} for {parameter.name}",
        )  # fmt: skip
    if parameter.symbol is None and parameter.high - parameter.low >= _MOST_VALUES:
        raise InputError(
            "range", f"{parameter.low}:{parameter.high}", f"at most {_MOST_VALUES:,} values"
        )
    return parameter
