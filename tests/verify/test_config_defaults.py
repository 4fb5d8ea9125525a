"""Class defaults in the readers equal those of the transformers configuration classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from costmodel.catalog import intern_vit, text_configs, towers
from costmodel.catalog.families import (
    idefics3,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    qwen2_5_vl,
    qwen2_vl,
)

transformers = pytest.importorskip(
    "transformers", reason="compares with the configuration classes: needs the extra 'verify'"
)

pytestmark = pytest.mark.verify


def compare(defaults: Mapping[str, Any], config: Any, ignore: tuple[str, ...] = ()) -> None:
    for key, value in defaults.items():
        if key in ignore:
            continue
        found = getattr(config, key)
        plain = found.to_dict() if hasattr(found, "to_dict") else found
        if isinstance(value, Mapping):
            assert {name: plain[name] for name in value} == dict(value), key
        elif isinstance(value, list | tuple):
            assert [list(i) if isinstance(i, tuple) else i for i in plain] == list(value), key
        else:
            assert plain == value, key


@pytest.mark.parametrize(
    ("kind", "name", "derived"),
    [
        # Classes fill these in from other keys; the reader does the same.
        ("llama", "LlamaConfig", ("num_key_value_heads", "head_dim")),
        ("mistral", "MistralConfig", ("head_dim",)),
        ("qwen2", "Qwen2Config", ("sliding_window",)),
        ("qwen3", "Qwen3Config", ("sliding_window",)),
    ],
)
def test_text_defaults(kind: str, name: str, derived: tuple[str, ...]) -> None:
    config = getattr(transformers, name)()
    compare(text_configs.TEXT_ARCHITECTURES[kind].defaults, config, ignore=derived)


@pytest.mark.parametrize(
    ("kind", "name"), [("qwen2_vl_text", "Qwen2VLConfig"), ("qwen2_5_vl_text", "Qwen2_5_VLConfig")]
)
def test_qwen_vl_text_defaults(kind: str, name: str) -> None:
    config = getattr(transformers, name)().text_config
    compare(text_configs.TEXT_ARCHITECTURES[kind].defaults, config, ignore=("sliding_window",))


@pytest.mark.parametrize(
    ("defaults", "name"),
    [(towers.CLIP_DEFAULTS, "CLIPVisionConfig"), (towers.SIGLIP_DEFAULTS, "SiglipVisionConfig")],
)
def test_tower_defaults(defaults: Mapping[str, Any], name: str) -> None:
    compare(defaults, getattr(transformers, name)())


def test_internvit_defaults() -> None:
    compare(intern_vit.INTERN_VIT_DEFAULTS, transformers.InternVLVisionConfig())


@pytest.mark.parametrize(
    ("defaults", "name"),
    [
        (qwen2_vl.VISION_DEFAULTS, "Qwen2VLConfig"),
        (qwen2_5_vl.VISION_DEFAULTS, "Qwen2_5_VLConfig"),
        (idefics3.VISION_DEFAULTS, "Idefics3Config"),
        (idefics3.VISION_DEFAULTS, "SmolVLMConfig"),
    ],
)
def test_own_tower_defaults(defaults: Mapping[str, Any], name: str) -> None:
    compare(defaults, getattr(transformers, name)().vision_config)


@pytest.mark.parametrize(
    ("defaults", "name"),
    [
        (llava.DEFAULTS, "LlavaConfig"),
        (llava_next.DEFAULTS, "LlavaNextConfig"),
        (llava_onevision.DEFAULTS, "LlavaOnevisionConfig"),
        (internvl.DEFAULTS, "InternVLConfig"),
        (idefics3.DEFAULTS, "Idefics3Config"),
        (idefics3.DEFAULTS, "SmolVLMConfig"),
    ],
)
def test_outer_defaults(defaults: Mapping[str, Any], name: str) -> None:
    compare(defaults, getattr(transformers, name)())


def test_internvl_tying_still_differs_on_purpose() -> None:
    # The reader follows the published files, written before this default was true.
    assert transformers.InternVLConfig().tie_word_embeddings is True
    assert "tie_word_embeddings" not in internvl.DEFAULTS


@pytest.mark.parametrize(
    ("defaults", "module", "name"),
    [
        (qwen2_vl.PROCESSOR_DEFAULTS, "qwen2_vl", "Qwen2VLImageProcessorPil"),
        (idefics3.PROCESSOR_DEFAULTS, "idefics3", "Idefics3ImageProcessorPil"),
        (idefics3.PROCESSOR_DEFAULTS, "smolvlm", "SmolVLMImageProcessorPil"),
        (internvl.PROCESSOR_DEFAULTS, "got_ocr2", "GotOcr2ImageProcessorPil"),
    ],
)
def test_processor_defaults(defaults: Mapping[str, Any], module: str, name: str) -> None:
    path = f"transformers.models.{module}.image_processing_pil_{module}"
    processor = getattr(pytest.importorskip(path, reason="a transformers release without it"), name)
    for key, value in defaults.items():
        assert getattr(processor, key) == value, key
