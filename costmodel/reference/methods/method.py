"""What every runnable compression method provides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "MethodCase", "Prepared", "ReferenceMethod", "random_tokens"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Number formats by the names the cost model gives them."""


@dataclass(frozen=True)
class MethodCase:
    """One problem to run a method on.

    Attributes
    ----------
    batch : int
        Images.
    tokens : int
        Visual tokens of each image before compression (n).
    kept : int
        Tokens of each image asked for (k); methods whose own rule sets the number check it.
    width : int
        Width of a token (d).
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    dtype : {"fp32", "fp16", "bf16"}
        Number format of tokens and weights.
    variant : str
        One of the method's variants; empty for its first.
    params : mapping
        Parameters of the method by name; those left out keep their defaults.
    seed : int
        Seed of random inputs and weights.
    """

    batch: int
    tokens: int
    kept: int
    width: int
    device: str = "cpu"
    dtype: str = "fp32"
    variant: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "tokens", "kept", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not at least 1")
        if self.kept > self.tokens:
            raise ValueError(f"kept: {self.kept} is more than the {self.tokens} tokens there are")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is none of {', '.join(DTYPES)}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """Torch's name of the number format."""
        return DTYPES[self.dtype]

    def generator(self) -> torch.Generator:
        """Return a fresh seeded generator on the device of the case."""
        return torch.Generator(self.device).manual_seed(self.seed)


@dataclass(frozen=True)
class Prepared:
    """A method with its inputs, ready to be timed.

    Attributes
    ----------
    run : callable
        Runs the method once and returns its output tensor or tensors.  It allocates no inputs,
        and records no gradients: modules are in evaluation mode and their weights need none.
    output_tokens : int or None
        Tokens of each image that come out; None where it depends on the data.
    parameters : int
        Parameters the method adds to the model.
    graph_safe : bool
        Whether `run` never waits for the device and its shapes never depend on data, so that a
        CUDA graph can capture it.
    """

    run: Callable[[], Tensor | tuple[Tensor, ...]]
    output_tokens: int | None
    parameters: int = 0
    graph_safe: bool = False


@dataclass(frozen=True)
class ReferenceMethod:
    """A compression method that runs.

    Attributes
    ----------
    name : str
        Name of the method, as in the cost model where it has the same method.
    summary : str
        What it does, in one sentence.
    variants : tuple of str
        Implementations, the default first.
    build : callable
        Makes inputs and modules for a case whose variant and parameters are filled in.
    params : mapping
        Parameters and their defaults.
    """

    name: str
    summary: str
    variants: tuple[str, ...]
    build: Callable[[MethodCase], Prepared]
    params: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, case: MethodCase) -> Prepared:
        """Make inputs and modules of a case; everything here is outside the timed region.

        Raises
        ------
        ValueError
            If the variant or a parameter is unknown, or the method cannot do the case.
        """
        variant = case.variant or self.variants[0]
        if variant not in self.variants:
            raise ValueError(
                f"variant: {self.name} has no {variant!r}, only {', '.join(self.variants)}"
            )
        unknown = sorted(case.params.keys() - self.params.keys())
        if unknown:
            known = ", ".join(self.params) or "none"
            raise ValueError(f"params: {self.name} has no {unknown[0]!r}, only {known}")
        return self.build(replace(case, variant=variant, params={**self.params, **case.params}))


def random_tokens(case: MethodCase) -> Tensor:
    """Return standard normal tokens, shape (batch, tokens, width), on the device of the case."""
    shape = (case.batch, case.tokens, case.width)
    made = torch.randn(shape, generator=case.generator(), device=case.device)
    return made.to(case.torch_dtype)
