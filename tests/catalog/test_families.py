"""Configurations of each family become the shapes of the real modules."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from costmodel.catalog import families
from costmodel.catalog.families import find_family, model_types, read_config
from costmodel.catalog.models_io import load_model, load_preset
from costmodel.specs.model import ModelSpec, ProjectorSpec, TextSpec, VisionSpec
from costmodel.specs.vision_rules import (
    AnyresMaxRule,
    AnyresRule,
    FixedRule,
    SmartResizeRule,
    SplitRule,
    TileRule,
)

CONFIGS = Path(__file__).resolve().parent.parent / "data" / "configs"


def norm(kind: str | None, width: int) -> int:
    return 0 if kind is None else width * (2 if kind == "layernorm" else 1)


def text_parameters(text: TextSpec) -> int:
    """Everything but a head of its own: embedding, layers, last norm."""
    d, f = text.hidden_size, text.intermediate_size
    q, k = text.heads * text.head_dim, text.kv_heads * text.head_dim
    attention = d * (q + 2 * k) + q * d + text.qkv_bias * (q + 2 * k) + text.o_bias * d
    attention += 2 * text.head_dim * text.qk_norm
    mlp = 3 * d * f + text.mlp_bias * (2 * f + d)
    layer = attention + mlp + 2 * norm(text.norm, d)
    return text.vocab_size * d + text.layers * layer + norm(text.norm, d)


def head_parameters(text: TextSpec) -> int:
    return 0 if text.tie_word_embeddings else text.vocab_size * text.hidden_size


def vision_parameters(tower: VisionSpec | None) -> int:
    if tower is None:
        return 0
    d, f = tower.hidden_size, tower.intermediate_size
    patch = tower.channels * tower.temporal_patch_size * tower.patch_size**2 * d
    embedding = patch + d * (tower.patch_bias + tower.class_token + tower.positions)
    attention = 4 * d * d + 3 * d * tower.qkv_bias + d * tower.o_bias + 2 * d * tower.qk_norm
    wide = 2 if tower.gated_mlp else 1
    mlp = (wide + 1) * d * f + tower.mlp_bias * (wide * f + d)
    layer = attention + mlp + 2 * norm(tower.norm, d) + 2 * d * tower.layer_scale
    norms = (tower.pre_norm + tower.post_norm) * norm(tower.norm, d)
    return embedding + tower.layers * layer + norms + tower.unused_parameters


def projector_parameters(projector: ProjectorSpec | None, text: TextSpec) -> int:
    if projector is None:
        return 0
    width = projector.in_features * projector.merge**2
    total = norm(projector.norm, width if projector.norm_after_merge else projector.in_features)
    for out in projector.widths:
        total += width * out + projector.bias * out
        width = out
    return total + projector.newline * text.hidden_size


def parts(spec: ModelSpec) -> tuple[int, int, int, int]:
    return (
        vision_parameters(spec.vision),
        projector_parameters(spec.projector, spec.text),
        text_parameters(spec.text),
        head_parameters(spec.text),
    )


def read(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> ModelSpec:
    return read_config(config, preprocessor, "config.json")


def preset_config(name: str, **changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(load_preset(name).config)
    config.update(changes)
    return config


# Source: parameters() of each transformers 5.23.0 class, built on the meta device from the
# preset's configuration: vision, projector, language model without head, head.
TRANSFORMERS_PARAMETERS = {
    "llava-1.5-7b": (303_507_456, 20_979_712, 6_607_605_760, 131_334_144),
    "llava-1.5-13b": (303_507_456, 31_467_520, 12_852_352_000, 164_167_680),
    "llava-next-vicuna-7b": (303_507_456, 20_983_808, 6_607_605_760, 131_334_144),
    "llava-next-vicuna-13b": (303_507_456, 31_472_640, 12_852_352_000, 164_167_680),
    "llava-next-mistral-7b": (303_507_456, 20_983_808, 7_110_922_240, 131_334_144),
    "llava-onevision-qwen2-7b": (397_747_744, 16_984_576, 7_070_619_136, 544_997_376),
    "qwen2-vl-7b": (631_183_360, 44_575_744, 7_070_619_136, 544_997_376),
    "qwen2.5-vl-7b": (631_975_680, 44_574_464, 7_070_619_136, 544_997_376),
    "internvl3-8b": (304_012_288, 27_540_480, 7_069_221_376, 543_599_616),
    "idefics3-8b": (412_926_192, 18_874_368, 7_504_936_960, 525_348_864),
    "smolvlm-2b": (412_987_248, 21_233_664, 1_711_382_528, 100_669_440),
    "llama-2-7b": (0, 0, 6_607_343_616, 131_072_000),
    "llama-2-13b": (0, 0, 12_852_024_320, 163_840_000),
    "llama-2-70b": (0, 0, 68_714_504_192, 262_144_000),
    "llama-3-8b": (0, 0, 7_504_924_672, 525_336_576),
}


@pytest.mark.parametrize(("name", "expected"), TRANSFORMERS_PARAMETERS.items())
def test_parameters_equal_the_transformers_module(
    name: str, expected: tuple[int, int, int, int]
) -> None:
    assert parts(load_model(name)) == expected


def test_vila_tower_and_projector_parameters() -> None:
    # Source: 857 MB of bf16 weights of a VILA tower with its pooling head
    # (huggingface.co/Efficient-Large-Model/qwen2-7b-longvila-1M/tree/main/vision_tower);
    # projector LN(4 x 1152), Linear(4608, 2560), Linear(2560, 2560) of NVlabs/VILA,
    # llava/model/multimodal_projector/base_projector.py.
    vision, projector, _, _ = parts(load_model("vila-1.5-3b"))
    assert round(2 * vision / 1e6) in (856, 857)
    assert projector == 2 * 4608 + (4608 * 2560 + 2560) + (2560 * 2560 + 2560)


# Source: safetensors metadata of the checkpoints (parameter_count), as published for
# OpenGVLab/InternVL2_5-{1B,2B,4B,8B} on https://huggingface.co.
INTERNVL_2_5 = {
    "Qwen2ForCausalLM": [
        (938_193_024, 896, 4864, 24, 14, 2, 151_674),
        (3_712_637_952, 2048, 11008, 36, 16, 2, 151_674),
    ],
    "InternLM2ForCausalLM": [
        (2_205_754_368, 2048, 8192, 24, 16, 8, 92_553),
        (8_075_365_376, 4096, 14336, 32, 32, 8, 92_553),
    ],
}


@pytest.mark.parametrize(
    ("architecture", "numbers"),
    [(architecture, row) for architecture, rows in INTERNVL_2_5.items() for row in rows],
)
def test_internvl_2_5_parameters_equal_the_published_total(
    architecture: str, numbers: tuple[int, ...]
) -> None:
    total, hidden, intermediate, layers, heads, kv_heads, vocabulary = numbers
    config = preset_config(
        "internvl3-8b",
        llm_config={
            "architectures": [architecture],
            "bias": False,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
        },
    )
    assert sum(parts(read(config))) == total


def test_every_module_declares_its_types_once() -> None:
    names = [module.name for module in pkgutil.iter_modules(families.__path__)]
    types = model_types()
    assert len(types) == len(set(types))
    for kind in types:
        family = find_family(kind)
        assert family is not None
        assert kind in family.MODEL_TYPES
    declared = {find_family(kind).__name__.rpartition(".")[2] for kind in types}  # type: ignore[union-attr]
    assert declared == set(names)


def test_llava_1_5_shapes() -> None:
    # Source: config.json of llava-hf/llava-1.5-7b-hf and openai/clip-vit-large-patch14-336.
    spec = load_model(str(CONFIGS / "llava-1.5-7b"))
    assert spec.text.model_dump(include={"hidden_size", "layers", "heads", "vocab_size"}) == {
        "hidden_size": 4096,
        "layers": 32,
        "heads": 32,
        "vocab_size": 32064,
    }
    assert spec.vision is not None
    assert (spec.vision.layers, spec.vision.layers_executed, spec.vision.layers_needed) == (
        24,
        24,
        23,
    )
    assert (spec.vision.pre_norm, spec.vision.post_norm_rows) == (True, "class")
    assert spec.image_rule == FixedRule(image_size=336, patch_size=14)
    assert spec.default_image == (336, 336)


def test_full_feature_selection_keeps_the_class_token() -> None:
    config = preset_config("llava-1.5-7b", vision_feature_select_strategy="full")
    assert isinstance(rule := read(config).image_rule, FixedRule)
    assert rule.class_token


def test_several_feature_layers_widen_the_projector() -> None:
    spec = read(preset_config("llava-1.5-7b", vision_feature_layer=[3, 12, -2]))
    assert spec.projector is not None
    assert spec.vision is not None
    assert spec.projector.in_features == 3 * 1024
    assert spec.vision.layers_needed == 23


def test_last_feature_layer_needs_all_layers() -> None:
    spec = read(preset_config("llava-1.5-7b", vision_feature_layer=-1))
    assert spec.vision is not None
    assert spec.vision.layers_needed is None


def test_original_llava_has_the_same_shapes_but_its_own_vocabulary() -> None:
    original = load_model(str(CONFIGS / "llava-original-7b"))
    converted = load_model("llava-1.5-7b")
    assert original.vision == converted.vision
    assert original.image_rule == converted.image_rule
    assert original.projector == converted.projector
    assert original.text == converted.text.model_copy(update={"vocab_size": 32000})


def test_original_llava_1_6_is_tiled() -> None:
    # Source: keys of liuhaotian/llava-v1.6-mistral-7b.
    spec = read(
        {
            "model_type": "llava_mistral",
            "mm_vision_tower": "/models/clip-vit-large-patch14-336",
            "mm_vision_select_layer": -2,
            "mm_projector_type": "mlp2x_gelu",
            "mm_patch_merge_type": "spatial_unpad",
            "image_aspect_ratio": "anyres",
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
            "sliding_window": None,
        }
    )
    assert spec.image_rule == load_model("llava-next-mistral-7b").image_rule
    assert spec.projector == load_model("llava-next-mistral-7b").projector


def test_llava_next_and_onevision_rules() -> None:
    following = load_model("llava-next-vicuna-7b").image_rule
    assert isinstance(following, AnyresRule)
    assert following.pinpoints == ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    onevision = load_model("llava-onevision-qwen2-7b")
    assert isinstance(onevision.image_rule, AnyresMaxRule)
    assert (len(onevision.image_rule.pinpoints), onevision.image_rule.max_tiles) == (36, 9)
    assert onevision.vision is not None
    assert (onevision.vision.layers, onevision.vision.unused_parameters) == (26, 0)


@pytest.mark.parametrize("folder", ["qwen2-vl-flat", "qwen2-vl-nested"])
def test_both_layouts_of_qwen2_vl_are_the_preset(folder: str) -> None:
    spec, preset = load_model(str(CONFIGS / folder)), load_model("qwen2-vl-7b")
    for part in ("text", "vision", "projector", "image_rule"):
        assert getattr(spec, part) == getattr(preset, part), part


def test_qwen_pixel_limits() -> None:
    config = preset_config("qwen2-vl-7b")
    without = read(config).image_rule
    assert isinstance(without, SmartResizeRule)
    assert (without.min_pixels, without.max_pixels) == (3136, 1_003_520)
    sized = read(config, {"size": {"shortest_edge": 6272, "longest_edge": 200_704}}).image_rule
    assert isinstance(sized, SmartResizeRule)
    assert (sized.min_pixels, sized.max_pixels) == (6272, 200_704)
    legacy = read(config, {"size": {"min_pixels": 6272, "max_pixels": 200_704}}).image_rule
    assert legacy == sized
    winning = read(config, {"max_pixels": 100_352, "size": {"longest_edge": 200_704}}).image_rule
    assert isinstance(winning, SmartResizeRule)
    assert winning.max_pixels == 100_352


def test_qwen2_5_vl_windows() -> None:
    tower = load_model("qwen2.5-vl-7b").vision
    assert tower is not None
    # Source: window_size 112 px = 8 patches of 14 px (Qwen2.5-VL, arXiv 2502.13923, section 2.1.1).
    assert (tower.window_patches, tower.full_attention_layers) == (8, (7, 15, 23, 31))
    assert (tower.norm, tower.gated_mlp, tower.rotary) == ("rmsnorm", True, True)


def test_qwen2_tying_at_either_level() -> None:
    config = preset_config("qwen2-vl-7b", tie_word_embeddings=True)
    assert read(config).text.tie_word_embeddings
    nested = {
        "model_type": "qwen2_vl",
        "text_config": {
            key: config[key] for key in ("hidden_size", "num_attention_heads", "vocab_size")
        }
        | {"num_key_value_heads": 4, "tie_word_embeddings": True},
    }
    assert read(nested).text.tie_word_embeddings


def test_internvl_layouts_differ_in_the_fused_projection_only() -> None:
    converted, original = load_model(str(CONFIGS / "internvl3-8b-hf")), load_model("internvl3-8b")
    assert original.vision is not None
    assert converted.vision == original.vision.model_copy(update={"qkv_fused": False})
    assert converted.text == original.text
    assert converted.projector == original.projector
    assert converted.image_rule == original.image_rule
    assert not converted.text.tie_word_embeddings


def test_internvl_tiles() -> None:
    config = preset_config("internvl3-8b", max_dynamic_patch=6)
    assert isinstance(rule := read(config).image_rule, TileRule)
    assert (rule.tile_size, rule.max_tiles, rule.merge, rule.thumbnail) == (448, 6, 2, True)
    single = read(preset_config("internvl3-8b", dynamic_image_size=False)).image_rule
    assert isinstance(single, TileRule)
    assert single.max_tiles == 1


def test_internvit_6b_norms_its_queries() -> None:
    # Source: class defaults of OpenGVLab's configuration_intern_vit.py are the 6B tower.
    config = preset_config("internvl3-8b", vision_config={"image_size": 448}, force_image_size=None)
    tower = read(config).vision
    assert tower is not None
    assert (tower.hidden_size, tower.layers, tower.qk_norm, tower.norm) == (
        3200,
        48,
        True,
        "rmsnorm",
    )
    assert not tower.qkv_bias


def test_idefics3_and_smolvlm_rules() -> None:
    # Source: 169 tokens per 364-pixel tile (model card of HuggingFaceM4/Idefics3-8B-Llama3),
    # 81 per 384-pixel tile (model card of HuggingFaceTB/SmolVLM-Instruct).
    for name, tokens in (("idefics3-8b", 169), ("smolvlm-2b", 81)):
        rule = load_model(name).image_rule
        assert isinstance(rule, SplitRule)
        assert (rule.tile_size // rule.patch_size // rule.merge) ** 2 == tokens
        assert rule.longest_edge == 4 * rule.tile_size


def test_idefics3_without_processor_takes_the_towers_size() -> None:
    spec = read(preset_config("smolvlm-2b"))
    assert spec.image_rule == load_model("smolvlm-2b").image_rule
    assert any("preprocessor_config.json" in note for note in spec.notes)


def test_smolvlm_tags_are_tokens_of_their_own_in_later_checkpoints() -> None:
    # Source: https://github.com/ggml-org/llama.cpp/issues/27190
    later = preset_config("smolvlm-2b", image_token_id=49190, model_type="smolvlm")
    assert isinstance(rule := read(later).image_rule, SplitRule)
    assert (rule.tile_tag_tokens, rule.global_tag_tokens) == (1, 1)
    assert isinstance(spelled := load_model("idefics3-8b").image_rule, SplitRule)
    assert (spelled.tile_tag_tokens, spelled.global_tag_tokens) == (8, 4)


def test_vila_parts_in_their_folders() -> None:
    spec, preset = load_model(str(CONFIGS / "vila-parts")), load_model("vila-1.5-3b")
    for part in ("vision", "projector", "image_rule"):
        assert getattr(spec, part) == getattr(preset, part), part
    assert spec.text == preset.text
    assert spec.image_rule == FixedRule(image_size=384, patch_size=14, merge=2)
    assert any("pooling head" in note for note in spec.notes)


def test_mistral_window_is_absent_only_where_it_is_null() -> None:
    assert read({"model_type": "mistral"}).text.sliding_window == 4096
    assert read({"model_type": "mistral", "sliding_window": None}).text.sliding_window is None


def test_qwen2_window_in_some_layers_is_noted() -> None:
    spec = read({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 28})
    assert spec.text.sliding_window is None
    assert any("28 to 31" in note for note in spec.notes)
    everywhere = {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0}
    assert read(everywhere).text.sliding_window == 4096


def test_head_dim_may_differ_from_the_quotient() -> None:
    # Source: mistralai/Mistral-Nemo-Base-2407: hidden 5120, 32 heads of 128.
    config = {"model_type": "mistral", "hidden_size": 5120, "head_dim": 128}
    assert read(config).text.head_dim == 128


def test_quantised_checkpoint_is_noted() -> None:
    spec = read(preset_config("llama-3-8b", quantization_config={"quant_method": "awq"}))
    assert any("awq" in note for note in spec.notes)


def test_unknown_activation_dtype_and_remote_code_keys_do_not_matter() -> None:
    config = preset_config(
        "llama-3-8b",
        hidden_act="some_new_act",
        torch_dtype=7,
        auto_map={"AutoConfig": "x.Y"},
        trust_remote_code=True,
    )
    assert read(config).text.activation == "some_new_act"
