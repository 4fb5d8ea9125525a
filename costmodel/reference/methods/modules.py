"""What several methods share: random inputs, and modules with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .method import MethodCase

__all__ = ["parameters_of", "random_values", "two_linears", "with_random_weights"]


def random_values(case: MethodCase, *shape: int, stream: int = 0) -> Tensor:
    """Return standard normal values of shape (images, ...) in the format of a case.

    Parameters
    ----------
    case : MethodCase
        Gives batch, device, number format and seed.
    *shape : int
        The other sizes.
    stream : int
        Tensors of one case differ if their streams do.
    """
    generator = torch.Generator(case.device).manual_seed(case.seed + 1_000_003 * stream)
    made = torch.randn(case.batch, *shape, generator=generator, device=case.device)
    return made.to(case.torch_dtype)


def two_linears(into: int, hidden: int, out: int) -> nn.Sequential:
    """Return ``Linear(into, hidden) -> GELU -> Linear(hidden, out)``, both with a bias."""
    return nn.Sequential(nn.Linear(into, hidden), nn.GELU(), nn.Linear(hidden, out))


def parameters_of(module: nn.Module) -> int:
    """Return the parameters of a module.

    Examples
    --------
    >>> parameters_of(two_linears(4, 8, 2))
    58
    """
    return sum(tensor.numel() for tensor in module.parameters())


def with_random_weights(make: Callable[[], nn.Module], case: MethodCase) -> nn.Module:
    """Build a module for inference, with seeded normal weights of deviation 0.02.

    Built without storage first, so that the default initialisation of large layers costs nothing;
    the module may hold no buffers.

    Parameters
    ----------
    make : callable
        Builds the module.
    case : MethodCase
        Gives device, number format and seed.
    """
    with torch.device("meta"):
        module = make()
    module = module.to(case.torch_dtype).to_empty(device=case.device)
    generator = case.generator()
    for weight in module.parameters():
        weight.requires_grad_(False).normal_(0.0, 0.02, generator=generator)
    return module.eval()
