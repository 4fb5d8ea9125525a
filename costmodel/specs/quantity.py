"""Numbers with a unit and a source."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from costmodel.specs.base import Spec
from costmodel.units import UNIT_FACTORS, to_si

__all__ = [
    "Bytes",
    "BytesPerSecond",
    "FlopsPerSecond",
    "Frequency",
    "Power",
    "Quantity",
    "Source",
    "check_sources",
    "measured_in",
]


class Source(Spec):
    """Where a number comes from."""

    title: str
    url: str = Field(pattern=r"^(https?://|doi:)")
    date: datetime.date
    note: str = ""


class Quantity(Spec):
    """A number with its unit and the key of its source."""

    value: float = Field(gt=0, strict=True)
    unit: str
    source: str = "user"

    @field_validator("value", mode="before")
    @classmethod
    def _not_text(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("expected a number, not text (YAML reads 2e12 as text: write 2.0e+12)")
        return value

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit not in UNIT_FACTORS:
            raise ValueError(f"unknown unit; known: {', '.join(UNIT_FACTORS)}")
        return unit

    @property
    def si(self) -> float:
        """The value in bytes, bytes/s, FLOP/s, Hz, W or s."""
        return to_si(self.value, self.unit)


_PREFIXES = ("", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi")


def measured_in(base: str) -> AfterValidator:
    """Return a validator that accepts quantities of one dimension only.

    Parameters
    ----------
    base : str
        Unit without a prefix: ``"B"``, ``"B/s"``, ``"FLOP/s"``, ``"Hz"`` or ``"W"``.

    Returns
    -------
    pydantic.AfterValidator
        To be put in an ``Annotated`` field; refuses any other unit.

    Examples
    --------
    >>> from pydantic import TypeAdapter
    >>> size = TypeAdapter(Annotated[Quantity, measured_in("B")])
    >>> size.validate_python({"value": 40, "unit": "MiB"}).si
    41943040.0
    """
    units = tuple(unit for unit in UNIT_FACTORS if unit in {prefix + base for prefix in _PREFIXES})

    def check(quantity: Quantity) -> Quantity:
        if quantity.unit not in units:
            raise ValueError(f"unit {quantity.unit!r} does not fit here; use {', '.join(units)}")
        if not math.isfinite(quantity.si):
            raise ValueError("the number is too large")
        return quantity

    return AfterValidator(check)


Bytes = Annotated[Quantity, measured_in("B")]
BytesPerSecond = Annotated[Quantity, measured_in("B/s")]
FlopsPerSecond = Annotated[Quantity, measured_in("FLOP/s")]
Frequency = Annotated[Quantity, measured_in("Hz")]
Power = Annotated[Quantity, measured_in("W")]


def check_sources(quantities: Iterable[Quantity], sources: Mapping[str, Source]) -> None:
    """Raise ValueError if a quantity names a source that is not listed.

    Parameters
    ----------
    quantities : iterable of Quantity
        Every number of a spec; those of the user need no source.
    sources : mapping of str to Source
        The spec's ``sources``.

    Raises
    ------
    ValueError
        Names the missing key and the known ones.
    """
    for quantity in quantities:
        if quantity.source != "user" and quantity.source not in sources:
            raise ValueError(
                f"source {quantity.source!r} is not listed under 'sources' "
                f"({', '.join(sources) or 'empty'})"
            )
