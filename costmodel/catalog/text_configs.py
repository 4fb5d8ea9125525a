"""Language-model part of a configuration: class defaults and the reader.

A ``config.json`` omits every key that equals the default of its class, so the
defaults are part of the format.  They are those of transformers 5.23.0
(``configuration_<model_type>.py``), and of OpenGVLab's
``configuration_internlm2.py`` for ``internlm2``;
`tests/verify/test_config_defaults.py` compares them with the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costmodel.catalog.section import LARGEST_LAYERS, Section
from costmodel.errors import did_you_mean
from costmodel.specs.model import TextSpec

__all__ = ["TEXT_ARCHITECTURES", "TextArchitecture", "read_text"]


@dataclass(frozen=True)
class TextArchitecture:
    """What one ``model_type`` fixes in code, and the defaults of its keys.

    Attributes
    ----------
    defaults : mapping
        Class defaults of the keys that matter for shapes.
    qkv_bias : bool, optional
        Whether the code gives q, k and v a bias; None where a key decides.
    qk_norm : bool
        Whether each head's q and k pass an RMSNorm of `head_dim` weights.
    bias_key : str
        Key that decides over the bias of q, k, v and o where `qkv_bias` is None.
    """

    defaults: Mapping[str, Any]
    qkv_bias: bool | None = None
    qk_norm: bool = False
    bias_key: str = "attention_bias"


_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
_QWEN2 = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_QWEN2_VL_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 80,
}

TEXT_ARCHITECTURES: Mapping[str, TextArchitecture] = {
    "llama": TextArchitecture(_LLAMA),
    "mistral": TextArchitecture(
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": None,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
            "sliding_window": 4096,
        },
        qkv_bias=False,
    ),
    "qwen2": TextArchitecture(_QWEN2, qkv_bias=True),
    "qwen2_vl_text": TextArchitecture(_QWEN2_VL_TEXT, qkv_bias=True),
    "qwen2_5_vl_text": TextArchitecture(_QWEN2_VL_TEXT, qkv_bias=True),
    "qwen3": TextArchitecture({**_QWEN2, "head_dim": 128, "attention_bias": False}, qk_norm=True),
    "internlm2": TextArchitecture(
        {
            "vocab_size": 103168,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": None,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "bias": True,
        },
        bias_key="bias",
    ),
}
"""Known language models by ``model_type``."""


def read_text(
    section: Section,
    default_type: str,
    tied: bool | None = None,
    model_type: str | None = None,
) -> TextSpec:
    """Read the language model from `section`.

    Parameters
    ----------
    section : Section
        The object that holds the language model's keys.
    default_type : str
        ``model_type`` where the section names none.
    tied : bool, optional
        Overrides ``tie_word_embeddings``, where the outer configuration decides.
    model_type : str, optional
        Overrides the section's own ``model_type``, which old hub files got wrong.

    Returns
    -------
    TextSpec
        Shapes of the language model [elements].

    Raises
    ------
    ConfigError
        If the type is not known, or a key is missing, malformed or contradicts another.

    Examples
    --------
    >>> spec = read_text(Section({"vocab_size": 32064}, "config.json"), "llama")
    >>> spec.hidden_size, spec.kv_heads, spec.vocab_size
    (4096, 32, 32064)
    """
    kind = model_type or section.with_defaults({"model_type": default_type}).text("model_type")
    architecture = TEXT_ARCHITECTURES.get(kind)
    if architecture is None:
        close = did_you_mean(kind, TEXT_ARCHITECTURES)
        guess = f", did you mean {close!r}?" if close else ""
        section.fail(
            "model_type",
            f"language model {kind!r} is not supported{guess} "
            f"(supported: {', '.join(TEXT_ARCHITECTURES)})",
        )
    keys = section.with_defaults(architecture.defaults)
    hidden = keys.integer("hidden_size")
    heads = keys.integer("num_attention_heads")
    kv_heads = keys.optional_integer("num_key_value_heads") or heads
    if heads % kv_heads:
        keys.fail(
            "num_key_value_heads",
            f"{kv_heads} does not divide num_attention_heads ({heads})",
        )
    head_dim = keys.optional_integer("head_dim")
    if head_dim is None:
        if hidden % heads:
            keys.fail(
                "num_attention_heads",
                f"{heads} does not divide hidden_size ({hidden}) and head_dim is not given",
            )
        head_dim = hidden // heads
    bias = architecture.qkv_bias
    if bias is None:
        bias = keys.boolean(architecture.bias_key)
    layers = keys.integer("num_hidden_layers", maximum=LARGEST_LAYERS)
    return TextSpec(
        model_type=kind,
        hidden_size=hidden,
        intermediate_size=keys.integer("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=keys.integer("vocab_size"),
        activation=keys.text("hidden_act"),
        qkv_bias=bias,
        o_bias=bias and architecture.qkv_bias is None,
        mlp_bias="mlp_bias" in keys.defaults and keys.boolean("mlp_bias"),
        qk_norm=architecture.qk_norm,
        tie_word_embeddings=_tied(keys) if tied is None else tied,
        max_position_embeddings=keys.optional_integer("max_position_embeddings"),
        sliding_window=_sliding_window(keys, layers),
    )


def _tied(keys: Section) -> bool:
    return "tie_word_embeddings" in keys and keys.boolean("tie_word_embeddings")


def _sliding_window(keys: Section, layers: int) -> int | None:
    """Window of all layers [tokens]; Qwen2 switches it off by ``use_sliding_window``."""
    window = keys.optional_integer("sliding_window")
    if window is None or "use_sliding_window" not in keys.defaults:
        return window
    if not keys.boolean("use_sliding_window"):
        return None
    first = keys.integer("max_window_layers", minimum=0)
    if first == 0:
        return window
    if first < layers:
        keys.notes.append(
            f"{keys.name('sliding_window')}: layers {first} to {layers - 1} attend to {window} "
            "tokens only; full attention is counted in all layers"
        )
    return None
