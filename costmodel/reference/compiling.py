"""`torch.compile` anew for each shape, or an error: never uncompiled code without a word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["compile_each_shape", "forget_compiled"]

_SPECIALISATIONS = 512
_NAMES_BEFORE_TORCH_2_7 = ("cache_size_limit", "accumulated_cache_size_limit")


def compile_each_shape(run: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return `run` compiled for each shape that it is called with.

    Past its limit of versions of one function torch runs it uncompiled without a word, and so it
    does after an error where the environment says so; here the limit is high and both are errors.

    Parameters
    ----------
    run : callable
        Of tensors.
    **options
        Of `torch.compile`.
    """
    import torch

    config = torch._dynamo.config
    for name in ("recompile_limit", "accumulated_recompile_limit", *_NAMES_BEFORE_TORCH_2_7):
        if hasattr(config, name):
            setattr(config, name, max(getattr(config, name), _SPECIALISATIONS))
    config.suppress_errors = False
    if hasattr(config, "fail_on_recompile_limit_hit"):
        config.fail_on_recompile_limit_hit = True
    made: Callable[..., Any] = torch.compile(run, dynamic=False, **options)
    return made


def forget_compiled() -> None:
    """Free compiled code and what it holds; what is compiled again counts from none."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
