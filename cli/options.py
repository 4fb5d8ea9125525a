"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import rich_click as click

from .complete import gpus, methods, models, time_models, words

__all__ = [
    "OUTPUT",
    "WHOLE",
    "format_option",
    "gpu_option",
    "model_argument",
    "question",
    "question_options",
    "split",
    "text_tokens_option",
]

Function = TypeVar("Function", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds options to a command's function."""

    def __call__(self, function: Function, /) -> Function:
        """Return the function with the options."""
        ...


DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8")


class Whole(click.ParamType[int | str]):
    """A whole number; other text is passed on, so that the library says what it expects."""

    name = "integer"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return an int where the text is one."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else str(value)


WHOLE = Whole()
OUTPUT = click.option(
    "-o", "--output", metavar="FILE", help="Write to this file instead of the terminal."
)


def split(values: Sequence[str]) -> list[str]:
    """Return the values of an option that is repeated or holds a list with commas."""
    found: list[str] = []
    for value in values:
        found += [value] if Path(value).is_file() else [part.strip() for part in value.split(",")]
    return found


def model_argument(function: Function) -> Function:
    """Add the argument MODEL."""
    return click.argument("model", shell_complete=models)(function)


def gpu_option(function: Function) -> Function:
    """Add --gpu, which may be repeated."""
    return click.option(
        "--gpu", "gpus", metavar="GPU", multiple=True, required=True, shell_complete=gpus,
        help="Known GPU, alias or YAML file; repeat or separate by commas for several.",
    )(function)  # fmt: skip


def text_tokens_option(default: int | None = None) -> Decorator:
    """Add --text-tokens, required unless it has a default."""
    # An explicit default of None would count as a value and make the option optional.
    given: dict[str, Any] = {"required": True} if default is None else {"default": default}
    return click.option(
        "--text-tokens", type=WHOLE, metavar="N", show_default=True, **given,
        help="Prompt tokens that are not visual, template included.",
    )  # fmt: skip


def format_option(*formats: str) -> Decorator:
    """Add --format; the first is the default."""
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True,
        help="How the result is written.",
    )  # fmt: skip


def _listed(*choices: str) -> dict[str, Any]:
    return {"metavar": "|".join(choices), "shell_complete": words(*choices), "show_default": True}


_QUESTION = (
    click.option(
        "--image", "images", metavar="WxH", multiple=True,
        help="Image of a request in pixels; repeat or separate by commas. "
        "Default: the model's usual image.",
    ),
    click.option(
        "--video", "videos", metavar="WxHxF", multiple=True,
        help="Video of a request: pixels and sampled frames.",
    ),
    click.option(
        "--visual-tokens", type=WHOLE, metavar="N",
        help="Visual tokens of a request instead of what images give; 0 for none.",
    ),
    click.option(
        "--output-tokens", type=WHOLE, metavar="N", default=0, show_default=True,
        help="Tokens generated per request.",
    ),
    click.option(
        "--batch", type=WHOLE, metavar="N", default=1, show_default=True,
        help="Requests computed together.",
    ),
    click.option(
        "--time-model", metavar="NAME", shell_complete=time_models,
        help="Where seconds come from: ideal or calibrated. "
        "Default: calibrated where the GPU has a calibration.",
    ),
    click.option(
        "--calibration", metavar="NAME|FILE",
        help="Calibration instead of the GPU's default; gpus show GPU lists them.",
    ),
    click.option(
        "--runtime", default="cuda-graph", **_listed("eager", "compiled", "cuda-graph"),
        help="How kernels are fused and started.",
    ),
    click.option(
        "--attention", default="flash", **_listed("flash", "sdpa", "eager"),
        help="Implementation of attention.",
    ),
    click.option(
        "--dtype", default="fp16", **_listed(*DTYPES),
        help="Format of weights, activations and KV cache.",
    ),
    click.option(
        "--weights-dtype", **_listed(*DTYPES, "int4"),
        help="Format of linear-layer weights, if another.",
    ),
    click.option(
        "--kv-dtype", **_listed(*DTYPES), help="Format of the KV cache, if another.",
    ),
    click.option(
        "--tp", type=WHOLE, metavar="N", default=1, show_default=True,
        help="Tensor-parallel devices of the language model.",
    ),
    click.option(
        "--vision-layers", type=WHOLE, metavar="N", help="Vision layers that run.",
    ),
    click.option(
        "--head-tokens", default="last", **_listed("last", "all"),
        help="Positions that get logits.",
    ),
)  # fmt: skip

_COMPRESS = click.option(
    "--compress", metavar="METHOD[:KEY=VALUE,...]", multiple=True, shell_complete=methods,
    help="Compression of the visual tokens, for example cluster:k=64; repeat for methods that "
    "act one after the other.",
)  # fmt: skip


def question_options(*, compress: bool = True) -> Decorator:
    """Add the options of a request and its deployment."""

    def decorate(function: Function) -> Function:
        for option in reversed(
            (*_QUESTION[:5], *([_COMPRESS] if compress else []), *_QUESTION[5:])
        ):
            function = option(function)
        return function

    return decorate


def question(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a request as the library takes them."""
    return {
        **options,
        "images": split(options["images"]),
        "videos": split(options["videos"]),
    }
