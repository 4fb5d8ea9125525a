"""What a counting convention is, and how one is found by name."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import costmodel.conventions.counts as _counts
from costmodel.errors import UnknownNameError
from costmodel.specs.model import TextSpec

__all__ = ["Convention", "LayerRun", "list_conventions", "load_convention", "uniform"]


@dataclass(frozen=True)
class LayerRun:
    """Consecutive decoder layers that work on the same number of tokens.

    Attributes
    ----------
    layers : int
        How many layers.
    tokens : float
        Tokens of one request in each of them.
    """

    layers: int
    tokens: float


def uniform(text: TextSpec, tokens: float) -> tuple[LayerRun, ...]:
    """Return the run of all layers on the same tokens."""
    return (LayerRun(text.layers, tokens),)


class Convention(ABC):
    """A way to count the operations of a prefill.

    Class attributes name and document it.

    Attributes
    ----------
    name, title : str
        Name on the command line, and in words.
    counts : {"MAC", "FLOP", "OP"}
        What one unit of the result is: a MAC is a multiplication with its addition, two FLOP;
        an OP of LLM-Viewer is a FLOP, but a MAC in the head.
    equation : str
        The count as text: n tokens, d hidden size, m MLP width, L layers.
    used_by, source, url : str
        Who counts so, and where that was read.
    by_operators : bool
        Whether the count of an estimate is the sum over its own operators, so that no formula
        over tokens is needed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    counts: ClassVar[str]
    equation: ClassVar[str]
    used_by: ClassVar[str]
    source: ClassVar[str]
    url: ClassVar[str]
    by_operators: ClassVar[bool] = False

    @abstractmethod
    def flops(self, text: TextSpec, runs: Sequence[LayerRun], batch: int = 1) -> float:
        """Return the operations of a prefill.

        Parameters
        ----------
        text : TextSpec
            Shape of the language model.
        runs : sequence of LayerRun
            Tokens of one request, layer by layer.
        batch : int
            Requests.

        Returns
        -------
        float
            In units of `counts`.
        """


def _modules() -> dict[str, str]:
    found = [info.name for info in pkgutil.iter_modules(_counts.__path__)]
    return {name.replace("_", "-"): name for name in found if name[0] != "_"}


def list_conventions() -> tuple[str, ...]:
    """Return the names of all conventions.

    Examples
    --------
    >>> list_conventions()[:3]
    ('flop', 'flop-3mlp', 'llm-viewer')
    """
    return tuple(sorted(_modules()))


def load_convention(name: str) -> Convention:
    """Return the convention called `name`.

    Raises
    ------
    UnknownNameError
        If there is none.

    Examples
    --------
    >>> load_convention("mac-2mlp").counts
    'MAC'
    """
    modules = _modules()
    if name not in modules:
        raise UnknownNameError("convention", name, modules)
    convention: Convention = importlib.import_module(
        f"{_counts.__name__}.{modules[name]}"
    ).CONVENTION
    return convention
