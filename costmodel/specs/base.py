"""Base class of every spec: frozen, strict about unknown keys, readable errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from costmodel.errors import SpecError, did_you_mean

__all__ = ["Spec"]


class Spec(BaseModel):
    """A frozen pydantic model that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True
    )

    @classmethod
    def parse(cls, data: object, where: str) -> Self:
        """Validate `data`, turning every problem into one readable line.

        Parameters
        ----------
        data : object
            A mapping, usually read from YAML or JSON.
        where : str
            The file or option it came from; starts the message.

        Returns
        -------
        Self
            The validated spec.

        Raises
        ------
        SpecError
            If `data` is no mapping, lacks a key, or holds an unknown or bad one.
        """
        if not isinstance(data, Mapping):
            raise SpecError(f"{where}: expected a mapping of keys, got {type(data).__name__}")
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            lines = "; ".join(_describe(cls, problem) for problem in error.errors())
            raise SpecError(f"{where}: {lines}") from None


def _describe(cls: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(cls, problem["loc"][:-1])
        close = did_you_mean(str(problem["loc"][-1]), fields)
        guess = f", did you mean {close!r}?" if close else ""
        known = f" (known: {', '.join(sorted(fields))})" if fields else ""
        return f"unknown key {path!r}{guess}{known}"
    if problem["type"] == "missing":
        return f"missing key {path!r}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    # What is wrong with the whole has no one value to show.
    return f"{path}: {message} (got {problem.get('input')!r})" if problem["loc"] else message


def _fields_at(cls: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    current: Any = cls
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
