"""One model at a time, shared by neighbouring cases."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..compiling import forget_compiled
from ..models.shapes import ModelShape

if TYPE_CHECKING:
    from ..models.base import RunnableModel

__all__ = ["Held", "Parts", "model_bytes", "parts_of"]

Made = TypeVar("Made")


@dataclass(frozen=True)
class Parts:
    """A model and its passes as a runtime runs them, graphs apart.

    Attributes
    ----------
    model : RunnableModel
        transformers' or the fused one.
    encode : callable
        Pixels to the tower's features and its pooled class token.
    prompt : callable
        Visual tokens or None, token ids and an empty cache to the logits of the last token.
    decode : callable
        A token of each sequence and a filled cache to logits; the cache stays as it is.
    """

    model: RunnableModel
    encode: Callable[[Any], Any]
    prompt: Callable[[Any, Any, Any], Any]
    decode: Callable[[Any, Any], Any]


class Held:
    """What was asked for last.

    A model of 13 billion parameters is made once for all its cases, and freed before the next.
    """

    def __init__(self) -> None:
        self._key: tuple[Hashable, ...] = ()
        self._made: Any = None

    def get(self, key: tuple[Hashable, ...], make: Callable[[], Made]) -> Made:
        """Return what `make` made for `key`, freeing what was made for another key first."""
        if key != self._key:
            self.drop()
            self._made, self._key = make(), key
        found: Made = self._made
        return found

    def drop(self) -> None:
        """Free it."""
        if not self._key:
            return
        import torch

        self._made, self._key = None, ()
        forget_compiled()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def model_bytes(model: Any) -> int:
    """Return what the weights and buffers of a module occupy [B]."""
    return sum(one.nbytes for one in (*model.parameters(), *model.buffers()))


def parts_of(shape: ModelShape, code: str, device: str, dtype: str) -> Parts:
    """Make a model and its passes.

    Parameters
    ----------
    shape : ModelShape
        Sizes.
    code : {"eager", "compiled"}
        transformers' code, or the fused code compiled.
    device, dtype : str
        Where, and the tidy name of the format.
    """
    from ..models.runtimes import build, wrap

    model = build(shape, code, device=device, dtype=dtype)  # type: ignore[arg-type]

    def prompt(tokens: Any, ids: Any, cache: Any) -> Any:
        return model.prefill(tokens, ids, cache).logits

    def decode(ids: Any, cache: Any) -> Any:
        return model.decode_step(ids, cache, advance=False)

    wrapped = [wrap(run, code) for run in (model.encode, prompt, decode)]  # type: ignore[arg-type]
    return Parts(model, *wrapped)
