"""The interface of a compression method, and the registry that finds one by name.

A method is one module in `costmodel.compression.methods` that defines a
subclass of `Method` named ``METHOD``.  Nothing else has to change.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sympy import Expr

from costmodel.compression import methods as _methods
from costmodel.compression.plan import CompressionPlan, DecoderGroup
from costmodel.errors import InputError, SpecError, UnknownNameError
from costmodel.specs.base import Spec
from costmodel.specs.model import ModelSpec, ProjectorSpec, VisionSpec
from costmodel.specs.workload import Deployment
from costmodel.vision_tokens.layout import VisualLayout

__all__ = [
    "Context",
    "ImageGroup",
    "Method",
    "Request",
    "list_methods",
    "load_method",
    "parse",
    "request",
    "split",
]


@dataclass(frozen=True)
class ImageGroup:
    """`units` images of one request that become the same layout."""

    units: int
    layout: VisualLayout


@dataclass(frozen=True)
class Context:
    """What a method needs to know to make its plan.

    Attributes
    ----------
    model : ModelSpec
        The model; it has a vision tower.
    images : tuple of ImageGroup
        The images of one request.
    deployment : Deployment
        Runtime and formats.
    """

    model: ModelSpec
    images: tuple[ImageGroup, ...]
    deployment: Deployment

    @property
    def vision(self) -> VisionSpec:
        """The vision tower."""
        if self.model.vision is None:
            raise InputError("compress", self.model.name, "a model with a vision tower")
        return self.model.vision

    @property
    def projector(self) -> ProjectorSpec:
        """The projector."""
        if self.model.projector is None:
            raise InputError("compress", self.model.name, "a model with a projector")
        return self.model.projector

    @property
    def features(self) -> int:
        """Visual embeddings per request that a method can work on."""
        return sum(group.units * group.layout.features for group in self.images)

    @property
    def markers(self) -> int:
        """Marker tokens per request, which stay."""
        return sum(group.units * group.layout.markers for group in self.images)

    @property
    def projected(self) -> int:
        """Rows per request that leave the unchanged projector."""
        return sum(group.units * group.layout.projected for group in self.images)

    def uniform(self, visual: Expr | int) -> tuple[DecoderGroup, ...]:
        """Return decoder groups with the same visual tokens in every layer."""
        return (DecoderGroup(layers=self.model.text.layers, visual=visual),)

    def square_grid(self, method: str) -> int:
        """Return the side of the square token grid every image consists of.

        Raises
        ------
        InputError
            If tokens are not whole square grids, one per tower sequence.
        """
        grids = {group.layout.grid for group in self.images}
        grid = next(iter(grids)) if len(grids) == 1 else None
        if grid is None or grid[0] != grid[1]:
            raise InputError(
                "compress", method, "a model and images whose tokens form one square grid per "
                f"tile, such as llava-1.5-7b; {self.model.name} gives {self._describe()}",
            )  # fmt: skip
        return grid[0]

    def _describe(self) -> str:
        return ", ".join(f"{group.layout.features} tokens per image" for group in self.images)


class NoParams(Spec):
    """No parameters."""


class Method(ABC):
    """A way to reduce the number of visual tokens.

    Class attributes name and document it; `Params` is the spec of its parameters.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    where: ClassVar[str]
    reference: ClassVar[str]
    url: ClassVar[str]
    static: ClassVar[bool] = True
    training: ClassVar[str] = "none"
    unknown: ClassVar[str] = ""

    Params: ClassVar[type[Spec]] = NoParams

    @abstractmethod
    def plan(self, params: Any, context: Context) -> CompressionPlan:
        """Return what the method does to a request."""

    @abstractmethod
    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return parameters that keep about `kept_per_image` tokens of each image.

        Raises
        ------
        InputError
            If the method cannot reach that number; the message says what it can.
        """


@dataclass(frozen=True)
class Request:
    """A method with checked parameters."""

    method: Method
    params: Spec

    @property
    def label(self) -> str:
        """``name:key=value,...`` with the parameters that were set."""
        given = self.params.model_dump(exclude_unset=True, exclude_none=True)
        if not given:
            return self.method.name
        return self.method.name + ":" + ",".join(f"{key}={value}" for key, value in given.items())

    @property
    def compresses(self) -> bool:
        """Whether it is a method at all, not ``none``."""
        return self.method.name != "none"

    def plan(self, context: Context) -> CompressionPlan:
        """Return what the method does to a request."""
        return self.method.plan(self.params, context)


def _modules() -> dict[str, str]:
    found = [info.name for info in pkgutil.iter_modules(_methods.__path__)]
    return {name.replace("_and_", "+").replace("_", "-"): name for name in found if name[0] != "_"}


def list_methods() -> tuple[str, ...]:
    """Return the names of all methods.

    Examples
    --------
    >>> "cluster" in list_methods()
    True
    """
    return tuple(sorted(_modules()))


def load_method(name: str) -> Method:
    """Return the method called `name`.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    modules = _modules()
    if name not in modules:
        raise UnknownNameError("method", name, modules)
    module = importlib.import_module(f"{_methods.__name__}.{modules[name]}")
    method: Method = module.METHOD
    return method


def parse(text: str) -> Request:
    """Read ``NAME`` or ``NAME:key=value,...``.

    Raises
    ------
    UnknownNameError, SpecError
        If the name, a key or a value is not known.

    Examples
    --------
    >>> parse("cluster:k=64,iterations=5").label
    'cluster:k=64,iterations=5'
    """
    return request(*split(text))


def split(text: str) -> tuple[Method, dict[str, str]]:
    """Read the method and the unchecked parameters of ``NAME:key=value,...``.

    Raises
    ------
    UnknownNameError, SpecError
        If the name is not known or the rest is no list of ``key=value``.
    """
    name, _, rest = text.strip().partition(":")
    method = load_method(name.strip().lower())
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise SpecError(f"compress {text!r}: expected key=value, got {item!r}")
        if key in values:
            raise SpecError(f"compress {text!r}: key {key!r} is given twice")
        values[key] = value.strip()
    return method, values


def request(method: Method, values: Mapping[str, Any]) -> Request:
    """Check `values` against the parameters of `method`.

    Raises
    ------
    SpecError
        If a key or value is not valid.
    """
    return Request(method, method.Params.parse(dict(values), f"compress {method.name}"))
