"""What is asked for: the requests, and how the model is deployed."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from costmodel.errors import InputError, UnknownNameError
from costmodel.specs.base import Spec

__all__ = [
    "ACTIVATION_DTYPES",
    "DTYPE_BYTES",
    "MAX_BATCH",
    "MAX_LAYERS",
    "MAX_TOKENS",
    "AttentionName",
    "Deployment",
    "Runtime",
    "Workload",
    "check_count",
    "check_dtype",
]

MAX_TOKENS = 100_000_000
MAX_BATCH = 1_000_000
MAX_LAYERS = 10_000

DTYPE_BYTES: dict[str, float] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
"""Bytes of one element; scales and zero points of quantised formats are not counted."""

ACTIVATION_DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8")
"""Formats activations and the KV cache may have; int4 is for weights."""

Runtime = Literal["eager", "compiled", "cuda-graph"]
AttentionName = Literal["flash", "sdpa", "eager"]


def check_count(field: str, value: object, *, low: int, high: int) -> int:
    """Return `value` as an int, or say what it should have been.

    Raises
    ------
    InputError
        If it is no whole number from `low` to `high`.

    Examples
    --------
    >>> check_count("batch", 4, low=1, high=10)
    4
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(field, value, f"a whole number from {low} to {high:,}")
    return value


def check_dtype(field: str, value: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`.

    Raises
    ------
    UnknownNameError
        Otherwise.
    """
    if value not in choices:
        hint = "int4 is for weights only." if value == "int4" else ""
        raise UnknownNameError(field, value, choices, hint)
    return value


class Workload(Spec):
    """The requests of one batch; all have the same prompt.

    Attributes
    ----------
    batch : int
        Requests computed together.
    text_tokens : int
        Every prompt token that is not visual.
    output_tokens : int
        Tokens generated; they add to the KV cache and to `tpot`'s context.
    images : tuple of (int, int)
        Width and height of each image of a request [pixels].
    videos : tuple of (int, int, int)
        Width, height [pixels] and frames of each video of a request.
    visual_tokens : int, optional
        Visual tokens per request instead of what the image rule gives.
    """

    batch: int = 1
    text_tokens: int
    output_tokens: int = 0
    images: tuple[tuple[int, int], ...] = ()
    videos: tuple[tuple[int, int, int], ...] = ()
    visual_tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _counts(cls, data: object) -> object:
        if isinstance(data, dict):
            limits = {
                "batch": (1, MAX_BATCH),
                "text_tokens": (1, MAX_TOKENS),
                "output_tokens": (0, MAX_TOKENS),
                "visual_tokens": (0, MAX_TOKENS),
            }
            for field, (low, high) in limits.items():
                if data.get(field) is not None:
                    check_count(field.replace("_", "-"), data[field], low=low, high=high)
        return data


class Deployment(Spec):
    """How the model runs.

    Attributes
    ----------
    dtype, weights_dtype, kv_dtype : str
        Formats of activations, linear-layer weights and KV cache.  A quantised
        weight format (fp8, int8, int4) applies to linear layers; embeddings,
        head, norms and biases stay in the activations' format (in fp16 where
        activations are quantised too), as in AWQ and GPTQ checkpoints.
    runtime : {"eager", "compiled", "cuda-graph"}
        ``eager`` is Hugging Face like: separate q, k, v, gate and up products
        and unfused elementwise kernels; the others are serving like.
    attention : {"flash", "sdpa", "eager"}
        Implementation of attention.
    tp : int
        Tensor-parallel devices for the language model; the vision side is replicated.
    vision_layers : int, optional
        Vision layers executed, if not the model's default.
    head_tokens : {"last", "all"}
        Positions of the prompt for which logits are computed.
    calibration : str, optional
        Name or file of the calibration, if not the GPU's default.
    """

    dtype: str = "fp16"
    weights_dtype: str = "fp16"
    kv_dtype: str = "fp16"
    runtime: Runtime = "cuda-graph"
    attention: AttentionName = "flash"
    tp: Annotated[int, Field(ge=1, le=1024)] = 1
    vision_layers: int | None = None
    head_tokens: Literal["last", "all"] = "last"
    calibration: str | None = None

    @classmethod
    def of(
        cls,
        *,
        dtype: str = "fp16",
        weights_dtype: str | None = None,
        kv_dtype: str | None = None,
        runtime: str = "cuda-graph",
        attention: str = "flash",
        tp: int = 1,
        vision_layers: int | None = None,
        head_tokens: str = "last",
        calibration: str | None = None,
    ) -> Deployment:
        """Check every option by name and fill the formats that follow `dtype`.

        Raises
        ------
        InputError, UnknownNameError
            For a value that is not one of the choices.
        """
        weights = weights_dtype or dtype
        kv = kv_dtype or dtype
        check_dtype("dtype", dtype, ACTIVATION_DTYPES)
        check_dtype("weights-dtype", weights, tuple(DTYPE_BYTES))
        check_dtype("kv-dtype", kv, ACTIVATION_DTYPES)
        check_dtype("runtime", runtime, get_args(Runtime))
        check_dtype("attention", attention, get_args(AttentionName))
        check_dtype("head-tokens", head_tokens, ("last", "all"))
        if vision_layers is not None:
            check_count("vision-layers", vision_layers, low=1, high=MAX_LAYERS)
        return cls.model_validate(
            {
                "dtype": dtype,
                "weights_dtype": weights,
                "kv_dtype": kv,
                "runtime": runtime,
                "attention": attention,
                "tp": check_count("tp", tp, low=1, high=1024),
                "vision_layers": vision_layers,
                "head_tokens": head_tokens,
                "calibration": calibration,
            }
        )

    @property
    def fused(self) -> bool:
        """Whether projections and elementwise kernels are fused, as serving engines do."""
        return self.runtime != "eager"

    @property
    def other_weights_dtype(self) -> str:
        """Format of embeddings, head, norms and biases."""
        if self.weights_dtype in ("fp32", "fp16", "bf16"):
            return self.weights_dtype
        return self.dtype if self.dtype in ("fp32", "fp16", "bf16") else "fp16"
