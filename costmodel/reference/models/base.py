"""What a runnable model does, whichever code runs it: image and text to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .shapes import ModelShape

__all__ = ["DTYPES", "Prefilled", "Pruning", "RunnableModel", "initialise", "visual_start"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Number formats by the names the cost model gives them."""

_SYSTEM_TOKENS = 35


class Prefilled(NamedTuple):
    """What a prefill returns.

    Attributes
    ----------
    logits : Tensor
        Of the last position, shape (batch, vocab).
    pooled : Tensor or None
        The tower's pooled class token; here so that no compiler drops the last vision layer.
    """

    logits: Tensor
    pooled: Tensor | None


class Pruning(Protocol):
    """Something that runs the layers of a decoder on fewer and fewer visual tokens."""

    def run(self, decoder: Any, hidden: Tensor, cache: Any, start: int, visual: int) -> Tensor:
        """Run all layers; visual tokens are `visual` columns from `start` on."""


class RunnableModel(nn.Module):  # type: ignore[misc]
    """Vision tower, projector and decoder with random weights.

    Attributes
    ----------
    shape : ModelShape
        Sizes.
    projector : Module or None
        Maps the tower's features to visual tokens; a method that replaces it is put here.
    """

    shape: ModelShape
    projector: Any

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the tower's features and its pooled class token."""
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings of token ids."""
        raise NotImplementedError

    def new_cache(self, batch: int, capacity: int) -> Any:
        """Return an empty KV cache for `capacity` tokens of each sequence."""
        raise NotImplementedError

    def run_prompt(
        self, hidden: Tensor, cache: Any, start: int, visual: int, pruning: Pruning | None
    ) -> Tensor:
        """Return the logits after a prompt given as embeddings."""
        raise NotImplementedError

    def decode_step(self, ids: Tensor, cache: Any, advance: bool = True) -> Tensor:
        """Return the logits after one more token of each sequence.

        Parameters
        ----------
        ids : Tensor
            Shape (batch, 1).
        cache : KV cache
            After a prefill.
        advance : bool
            Whether the token stays in the cache; otherwise the same step can be timed again.

        Returns
        -------
        Tensor
            Shape (batch, vocab).
        """
        raise NotImplementedError

    def visual_tokens(
        self, image: Tensor, compress: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return visual tokens (batch, tokens, decoder width) and the pooled class token.

        Parameters
        ----------
        image : Tensor
            Pixels (batch, 3, side, side), pixels of several tiles (batch, tiles, 3, side, side),
            or visual tokens that are ready (batch, tokens, decoder width).
        compress : callable, optional
            Takes the projected tokens and returns fewer.

        Raises
        ------
        ValueError
            If pixels are given to a model without a vision tower.
        """
        tokens, pooled = image, None
        if image.ndim > 3:
            if self.projector is None:
                raise ValueError(f"image: {self.shape.name} has no vision tower for pixels")
            features, pooled = self.encode(image.flatten(0, 1) if image.ndim == 5 else image)
            tokens = self.projector(features)
            if image.ndim == 5:
                tokens = tokens.unflatten(0, (len(image), -1)).flatten(1, 2)
        return (tokens if compress is None else compress(tokens)), pooled

    def prefill(
        self,
        image: Tensor | None,
        text: Tensor,
        cache: Any,
        compress: Callable[[Tensor], Tensor] | None = None,
        pruning: Pruning | None = None,
    ) -> Prefilled:
        """Run everything from pixels to the logits of the last position.

        Parameters
        ----------
        image : Tensor or None
            As in `visual_tokens`; None for a prompt of text.
        text : Tensor
            Token ids (batch, tokens); visual tokens come after the first `visual_start` of them.
        cache : KV cache
            Of `new_cache`; what it held is overwritten.
        compress : callable, optional
            Acts between projector and decoder.
        pruning : Pruning, optional
            Acts inside the decoder.

        Returns
        -------
        Prefilled
        """
        hidden, pooled, visual = self.embed(text), None, 0
        start = visual_start(text.shape[1])
        if image is not None:
            tokens, pooled = self.visual_tokens(image, compress)
            visual = tokens.shape[1]
            hidden = torch.cat((hidden[:, :start], tokens, hidden[:, start:]), dim=1)
        return Prefilled(self.run_prompt(hidden, cache, start, visual, pruning), pooled)


def visual_start(text_tokens: int) -> int:
    """Return how many text tokens precede the image: 35 of LLaVA's system prompt, if there are.

    Examples
    --------
    >>> visual_start(64), visual_start(8)
    (35, 7)
    """
    return min(_SYSTEM_TOKENS, max(text_tokens - 1, 0))


def initialise(model: nn.Module, device: torch.device | str, seed: int) -> None:
    """Give a model that was made on the meta device memory and random weights.

    Matrices are normal with deviation 0.02, vectors of norms are one, biases zero.  Numbers are
    drawn on the device, in the format of the weights: large models need no host memory.

    Parameters
    ----------
    model : Module
        Its parameters are overwritten; they need no gradients afterwards.
    device : device
        Where to; ``"meta"`` leaves the model without numbers, to count with.
    seed : int
        Seed of the weights.
    """
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
    model.requires_grad_(False).eval()
    if torch.device(device).type == "meta":
        return
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "class" in name:
            parameter.normal_(0.0, 0.02, generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1.0)
