"""Models and token counts that suites share."""

from __future__ import annotations

from ..harness.case import Options
from ..models.shapes import ModelShape, load_shape

__all__ = ["models_of", "tokens_of"]

_QUICK_TOKENS = (1, 16, 64, 256)
_CPU_TOKENS = (1, 4, 16, 32, 64, 128, 192, 256, 384, 512, 640, 1024, 2048)
_GPU_TOKENS = (
    1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 208, 256, 320, 384, 448, 512, 640, 704,
    768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 6144, 8192,
)  # fmt: skip


def models_of(options: Options) -> list[ModelShape]:
    """Return the shapes of the chosen models: a small one where none was named, on a CPU.

    Examples
    --------
    >>> [shape.name for shape in models_of(Options(device="cuda", dtypes=("fp16",)))]
    ['llava-1.5-7b', 'llama-3-8b']
    """
    default = (
        ("llava-tiny",)
        if options.quick
        else ("llava-1.5-7b", "llama-3-8b")
        if options.device == "cuda"
        else ("llava-small",)
    )
    return [load_shape(name) for name in options.models or default]


def tokens_of(options: Options) -> tuple[int, ...]:
    """Return the token counts to measure, in ascending order."""
    if options.tokens:
        return tuple(sorted(set(options.tokens)))
    if options.quick:
        return _QUICK_TOKENS
    return _GPU_TOKENS if options.device == "cuda" else _CPU_TOKENS
