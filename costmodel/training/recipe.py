"""A training recipe: stages, what each trains, and its data; one YAML file each."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import Field, model_validator

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.errors import UnknownNameError
from costmodel.specs.base import Spec

__all__ = ["PARTS", "Data", "Part", "Recipe", "Stage", "TextTokens", "list_recipes", "load_recipe"]

Part = Literal["vision", "projector", "llm"]
"""What a stage trains or freezes; a compression's own weights go with the projector."""

PARTS: tuple[Part, ...] = ("vision", "projector", "llm")
"""Parts in the order of the forward pass."""

Count = Annotated[int, Field(gt=0, strict=True)]


class TextTokens(Spec):
    """Mean text tokens of a sample, answers included, and the range it may lie in."""

    value: Count
    low: Count
    high: Count

    @model_validator(mode="after")
    def _ordered(self) -> TextTokens:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"expected low <= value <= high, got {self.low}, {self.value}, "
                             f"{self.high}")  # fmt: skip
        return self


class Data(Spec):
    """Samples of one kind."""

    name: str
    samples: Count
    images: bool
    text_tokens: TextTokens


class Stage(Spec):
    """One run over some data.

    Attributes
    ----------
    name : str
    trained : tuple of str
        Parts whose weights change.
    checkpointed : tuple of str
        Parts whose forward pass runs again before their backward pass.
    zero : {1, 2, 3}
        Stage of ZeRO: what the GPUs share out between them.
    global_batch : int
        Samples of one step of the optimizer.
    micro_batch : int
        Samples that one GPU computes together, at most.
    max_tokens : int
        Longest sample, visual tokens included; longer ones are cut.
    data : tuple of Data
        Micro batches hold samples of one kind only, as LLaVA's sampler groups them.
    epochs : int
    """

    name: str
    trained: Annotated[tuple[Part, ...], Field(min_length=1)]
    checkpointed: tuple[Part, ...] = ()
    zero: Annotated[int, Field(ge=1, le=3, strict=True)]
    global_batch: Count
    micro_batch: Count
    max_tokens: Count
    data: Annotated[tuple[Data, ...], Field(min_length=1)]
    epochs: Count = 1

    @property
    def samples(self) -> int:
        """Samples of all epochs."""
        return self.epochs * sum(data.samples for data in self.data)


class Recipe(Spec):
    """A training run of several stages, with its sources."""

    name: str
    title: str
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    notes: str = ""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]


@lru_cache
def list_recipes() -> tuple[str, ...]:
    """Return the names of the recipes.

    Examples
    --------
    >>> "llava-1.5" in list_recipes()
    True
    """
    folder = files("costmodel.training") / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


@lru_cache
def load_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises
    ------
    UnknownNameError
        If there is none of that name.

    Examples
    --------
    >>> [stage.samples for stage in load_recipe("llava-1.5").stages]
    [558128, 665298]
    """
    if name not in list_recipes():
        raise UnknownNameError("recipe", name, list_recipes())
    where = f"{name}.yaml"
    source = files("costmodel.training") / "recipes" / where
    return Recipe.parse(read_yaml_mapping(source, where), where)
