"""What a shipped calibration is made of, as data: see recipes.yaml beside this file."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any

from pydantic import Field

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.errors import SpecError
from costmodel.specs.base import Spec

__all__ = ["Borrow", "FitFrom", "Recipe", "load_recipes", "load_stand_ins"]

_WHERE = "recipes.yaml"


class FitFrom(Spec):
    """Rows of one kind: beginnings of source and software, formats, kernels.

    `fixed` sets parameters that are properties of the software and not fitted.
    """

    source: str = ""
    software: str = ""
    dtypes: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    fixed: dict[str, float] = Field(default_factory=dict)


class Borrow(Spec):
    """Kinds taken over from another calibration.

    Attributes
    ----------
    kind, kinds : str, tuple of str
        One or several.
    from_ : str
        The calibration, ``from`` in files.
    widen : float
        Factor on the bands' logarithms.
    time_scale : float
        Factor on predicted times beside the datasheets' ratio.
    rule : str
        Why and how.
    """

    kind: str | None = None
    kinds: tuple[str, ...] = ()
    from_: str = Field(alias="from")
    widen: Annotated[float, Field(ge=1)] = 1.5
    time_scale: Annotated[float, Field(gt=0)] = 1.0
    rule: str

    @property
    def names(self) -> tuple[str, ...]:
        """All kinds."""
        return (*self.kinds, self.kind) if self.kind else self.kinds


class Recipe(Spec):
    """One calibration file.

    Attributes
    ----------
    name : str
        ``<device>.<stack>``.
    title : str
        For people.
    fit : dict of str to FitFrom
        Kinds fitted from this device's rows.
    borrow : tuple of Borrow
        Kinds taken over.
    fill : str, optional
        Calibration of the same device that supplies all other kinds unchanged.
    compare : tuple of str
        Calibrations of the same device whose rows say how far another lab or framework is.
    """

    name: str
    title: str
    fit: dict[str, FitFrom] = Field(default_factory=dict)
    borrow: tuple[Borrow, ...] = ()
    fill: str | None = None
    compare: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The hardware profile."""
        return self.name.partition(".")[0]

    @property
    def needs(self) -> tuple[str, ...]:
        """Calibrations that must exist before this one."""
        filled = (self.fill,) if self.fill else ()
        return (*(borrow.from_ for borrow in self.borrow), *filled)


def load_stand_ins() -> tuple[Borrow, ...]:
    """Return which kind stands in for kinds that were measured nowhere, within a calibration."""
    return tuple(Borrow.parse(item, _WHERE) for item in _data().get("stand_ins", []))


def _data() -> dict[str, Any]:
    return read_yaml_mapping(files("costmodel.calibration") / _WHERE, _WHERE)


def load_recipes() -> dict[str, Recipe]:
    """Return the recipes of all shipped calibrations by name, in an order that can be built."""
    parsed = [Recipe.parse(item, _WHERE) for item in _data().get("recipes", [])]
    recipes = {recipe.name: recipe for recipe in parsed}
    ordered: dict[str, Recipe] = {}
    waiting = dict(recipes)
    while waiting:
        ready = [name for name, recipe in waiting.items() if set(recipe.needs) <= set(ordered)]
        if not ready:
            raise SpecError(f"{_WHERE}: {', '.join(waiting)} wait for each other")
        for name in ready:
            ordered[name] = waiting.pop(name)
    return ordered
