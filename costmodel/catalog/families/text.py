"""Language models without images: Llama, Mistral, Qwen2 and Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import build_model, top_section
from costmodel.catalog.text_configs import read_text
from costmodel.specs.model import ModelSpec

__all__ = ["MODEL_TYPES", "read"]

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read the configuration of a language model.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Ignored.
    where : str
        File name for error messages.

    Returns
    -------
    ModelSpec
        Shapes of the model; no vision.

    Raises
    ------
    ConfigError
        If a key is missing, malformed or contradicts another.

    Examples
    --------
    >>> read({"model_type": "mistral"}, None, "config.json").text.kv_heads
    8
    """
    top = top_section(config, where, {})
    text = read_text(top, "llama")
    return build_model(top, "text", text)
