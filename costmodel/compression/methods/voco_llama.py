"""VoCo-LLaMA: an image pressed into a few tokens by the language model, through its mask."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from costmodel.compression.bottleneck import bottleneck_plan, check_budget
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.specs.base import Spec

__all__ = ["METHOD"]


class VocoParams(Spec):
    """Size of the bottleneck."""

    k: Annotated[int, Field(gt=0)] = Field(default=1, description="compression tokens per image")


class VocoLlama(Method):
    """Text attends to the image through k learned tokens behind it; only these stay cached.

    The visual tokens pass all layers once, so that prefill of a new image saves nothing and
    computes k tokens more; a cached image, decoding and memory save.  Visual tokens attend to
    each other as usual; text sees the k tokens alone.

    Read: ``llava_llama_1stg.py`` of Yxxxb/VoCo-LLaMA, commit e0dcf92, whose mask is four
    dimensional and needs sdpa.  Keeping the cache of the k tokens only is the paper's; the code
    read keeps all.
    """

    name = "voco-llama"
    title = "VoCo-LLaMA"
    summary = "The language model presses an image into a few tokens; only their KV stays."
    where = "inside the language model, by its attention mask"
    reference = "X. Ye et al., VoCo-LLaMA, CVPR 2025"
    url = "https://arxiv.org/abs/2406.12275"
    training = "instruction tuning of language model and projector with the mask"
    unknown = "Whether published times are of new or of cached images in every table."

    Params = VocoParams

    def plan(self, params: VocoParams, context: Context) -> CompressionPlan:
        """Return a plan with full layers and a cache of the bottleneck."""
        check_budget(params.k, context, self.name)
        return bottleneck_plan(self.name, context, params.k, 0, training=self.training)

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``: tokens cached, as all layers run on all tokens whatever it is."""
        return {"k": check_budget(kept_per_image, context, self.name)}


METHOD = VocoLlama()
