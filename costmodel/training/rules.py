"""How many forward passes' worth of FLOPs the parts of a model take in training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from costmodel.training.recipe import PARTS, Part

__all__ = ["Passes", "passes"]


@dataclass(frozen=True)
class Passes:
    """Passes over one part in a step, each with the FLOPs of one forward pass.

    Attributes
    ----------
    forward : int
        1, and 1 more where activations are computed again.
    backward : int
        1 for the gradients of the inputs, 1 for those of the weights.
    """

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """FLOPs over those of a forward pass."""
        return self.forward + self.backward

    def time(self, backward_share: float) -> float:
        """Return the time over that of a forward pass."""
        return self.forward + backward_share * self.backward


def passes(trained: Collection[Part], checkpointed: Collection[Part]) -> dict[Part, Passes]:
    """Return the passes over each part.

    Gradients flow back as far as the first trained part.  From there on every part computes those
    of its inputs, and a trained one those of its weights too.  A part that is checkpointed and has
    a backward pass runs forward again.  The rule is that of a matrix product with weights: the
    backward pass of attention scores, which have none, is 2 forward passes even where all weights
    are frozen, and the gradients of the inputs of the first trained part are not needed.

    Parameters
    ----------
    trained, checkpointed : collection of str
        Parts, out of `PARTS`.

    Returns
    -------
    dict of str to Passes

    Examples
    --------
    Alignment trains the projector alone, instruction tuning the language model too:

    >>> {part: p.total for part, p in passes({"projector"}, {"llm"}).items()}
    {'vision': 1, 'projector': 3, 'llm': 3}
    >>> both = {"projector", "llm"}
    >>> {part: p.total for part, p in passes(both, both).items()}
    {'vision': 1, 'projector': 4, 'llm': 4}
    """
    found: dict[Part, Passes] = {}
    flowing = False
    for part in PARTS:
        flowing = flowing or part in trained
        again = flowing and part in checkpointed
        found[part] = Passes(1 + again, flowing + (part in trained))
    return found
