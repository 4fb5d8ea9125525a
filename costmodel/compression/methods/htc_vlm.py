"""HTC-VLM: patches and discrete anchors pressed into one token by the language model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from costmodel.compression.bottleneck import bottleneck_plan, check_budget
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.ops import Weights, activation, gemm
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]


class HtcParams(Spec):
    """Sizes; the defaults are the paper's."""

    k: Annotated[int, Field(gt=0)] = Field(default=1, description="bottleneck tokens per image")
    anchors: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=4, description="tokens per image made of discrete codes"
    )
    codes: Annotated[int, Field(gt=0, le=10_000_000)] = Field(
        default=14112, description="width of the vector of codes of one image"
    )
    hidden: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="hidden width of their projector (default: the model's width)"
    )


class HtcVlm(Method):
    r"""Discrete codes become a few anchor tokens before the patches; text sees one token behind.

    A two-layer projector turns q codes of an image into a anchors of the model's width:

    .. math:: F = 2 b u (q h + h\, a\, d)

    580 tokens and the bottleneck pass all layers under a mask in which visual tokens do not see
    each other; a kernel that skips what is masked is not assumed.  After it only keys and
    values of the bottleneck stay.

    No code is public; what is said here is from the abstract and from notes on the paper, whose
    efficiency tables are marked as placeholders and are not used.
    """

    name = "htc-vlm"
    title = "HybridToken-VLM"
    summary = "Patches and four discrete anchors are pressed into one token; its KV stays."
    where = "inside the language model, by its attention mask"
    reference = "J. Zhang et al., HybridToken-VLM, 2025"
    url = "https://arxiv.org/abs/2512.08240"
    training = "projectors and LoRA of the language model"
    unknown = (
        "The tokenizer that makes the codes (MGVQ, 8 groups of 16384) is not counted: neither its "
        "FLOPs nor its parameters are stated; nor is the hidden width of the projector of codes."
    )

    Params = HtcParams

    def plan(self, params: HtcParams, context: Context) -> CompressionPlan:
        """Return a plan with the projector of codes, full layers and a cache of one token."""
        check_budget(params.k, context, self.name)
        # c: codes of an image; h: hidden width; vc: anchors of an image.
        codes, hidden, out = sym("c"), sym("h"), sym("vc") * sym("d")
        rows = sym("b") * sym("u")
        fused = context.deployment.fused
        ops = [
            gemm(f"{self.name}.linear_1", "compression", m=rows, n=hidden, k=codes, bias=True),
            activation(f"{self.name}.gelu", "compression", rows=rows, cols=hidden,
                       function="gelu", gated=False, fused=fused),
            gemm(f"{self.name}.linear_2", "compression", m=rows, n=out, k=hidden, bias=True),
        ]  # fmt: skip
        width = context.model.text.hidden_size
        return bottleneck_plan(
            self.name,
            context,
            params.k,
            params.anchors,
            ops,
            {codes: float(params.codes), hidden: float(params.hidden or width)},
            weights=(
                Weights(f"{self.name}.linear", "compression", codes * hidden + hidden * out),
                Weights(f"{self.name}.biases", "compression", hidden + out, linear=False),
            ),
            training=self.training,
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``: tokens cached, as all layers run on all tokens whatever it is."""
        return {"k": check_budget(kept_per_image, context, self.name)}


METHOD = HtcVlm()
