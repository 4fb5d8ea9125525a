"""Whole models of every family on the CPU: their forward pass equals the sum of our parts.

The models are tiny, so that real tensors can go through transformers' own ``forward``, with
every test of data that the meta device does not allow.  Between them they have what the
presets lack: tied heads, biases, norms of q and k, class tokens, several feature layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from costmodel.vision_tokens import ImageSize, VisualLayout, image_layouts

if TYPE_CHECKING:
    from tests.verify.conftest import Reference, Truth

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify

IMAGE_TOKEN = 90
TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = TEXT | {"num_key_value_heads": 2}
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 56,
    "patch_size": 14,
}
CLIP = TOWER | {"model_type": "clip_vision_model"}
SIGLIP = TOWER | {"model_type": "siglip_vision_model"}
QWEN_TOWER = {"depth": 3, "num_heads": 3, "in_channels": 3, "patch_size": 14}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
LLAVA = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "image_token_index": IMAGE_TOKEN,
}


@dataclass(frozen=True)
class Case:
    """A tiny model, the images of one request, and modules of the tower whose result is unread."""

    config: dict[str, Any]
    images: tuple[tuple[int, int], ...] = ()
    preprocessor: dict[str, Any] | None = None
    unread: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[ImageSize, ...]:
        return tuple(ImageSize(*sides) for sides in self.images)


CASES = {
    "llava": Case(
        LLAVA | {"text_config": TEXT | {"model_type": "llama"}, "vision_config": CLIP},
        ((56, 56),),
    ),
    "llava-two-layers-class-token-biases-tied": Case(
        LLAVA
        | {
            "text_config": GROUPED
            | {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
            "vision_config": CLIP,
            "vision_feature_layer": [-2, -3],
            "vision_feature_select_strategy": "full",
            "multimodal_projector_bias": False,
            "tie_word_embeddings": True,
        },
        ((56, 56), (56, 56)),
    ),
    "llava-siglip-pooling-head": Case(
        LLAVA
        | {
            "text_config": GROUPED | {"model_type": "qwen2"},
            "vision_config": SIGLIP,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        ((56, 56),),
        unread=("head",),
    ),
    "llava_next-head-dim": Case(
        {
            "model_type": "llava_next",
            "architectures": ["LlavaNextForConditionalGeneration"],
            "image_token_index": IMAGE_TOKEN,
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
            "text_config": GROUPED | {"model_type": "mistral", "head_dim": 16},
            "vision_config": CLIP,
        },
        ((100, 60), (40, 90)),
    ),
    "llava_next-class-token": Case(
        {
            "model_type": "llava_next",
            "architectures": ["LlavaNextForConditionalGeneration"],
            "image_token_index": IMAGE_TOKEN,
            "image_grid_pinpoints": [[112, 112]],
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": SIGLIP | {"vision_use_head": False},
            "vision_feature_select_strategy": "full",
        },
        ((100, 60),),
    ),
    "llava_onevision": Case(
        {
            "model_type": "llava_onevision",
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "image_token_index": IMAGE_TOKEN,
            "video_token_index": IMAGE_TOKEN + 1,
            "vision_aspect_ratio": "anyres_max_2",
            "image_grid_pinpoints": [[56, 112], [112, 112], [168, 168]],
            "text_config": GROUPED | {"model_type": "qwen2"},
            "vision_config": SIGLIP | {"vision_use_head": False},
        },
        ((100, 90),),
    ),
    "internvl": Case(
        {
            "model_type": "internvl",
            "architectures": ["InternVLForConditionalGeneration"],
            "image_token_id": IMAGE_TOKEN,
            "text_config": GROUPED | {"model_type": "qwen2", "tie_word_embeddings": False},
            "tie_word_embeddings": False,
            "vision_config": TOWER | {"image_size": [56, 56], "patch_size": [14, 14]},
        },
        ((56, 56), (56, 120)),
        {"max_patches": 4},
    ),
    "internvl-qk-norm-tied": Case(
        {
            "model_type": "internvl",
            "architectures": ["InternVLForConditionalGeneration"],
            "image_token_id": IMAGE_TOKEN,
            "text_config": TEXT | {"model_type": "llama"},
            "tie_word_embeddings": True,
            "vision_feature_layer": -2,
            "vision_config": TOWER
            | {
                "image_size": [56, 56],
                "patch_size": [14, 14],
                "attention_bias": True,
                "use_qk_norm": True,
                "norm_type": "rms_norm",
                "use_mean_pooling": False,
                "use_mask_token": True,
                "use_absolute_position_embeddings": False,
            },
        },
        ((56, 56),),
        {"max_patches": 1},
    ),
    "idefics3": Case(
        {
            "model_type": "idefics3",
            "architectures": ["Idefics3ForConditionalGeneration"],
            "image_token_id": IMAGE_TOKEN,
            "scale_factor": 2,
            "text_config": GROUPED | {"model_type": "llama"},
            "vision_config": TOWER | {"model_type": "idefics3_vision"},
        },
        ((200, 100),),
        {"max_image_size": {"longest_edge": 56}, "size": {"longest_edge": 168}},
    ),
    "smolvlm-tied": Case(
        {
            "model_type": "smolvlm",
            "architectures": ["SmolVLMForConditionalGeneration"],
            "image_token_id": IMAGE_TOKEN,
            "scale_factor": 4,
            "tie_word_embeddings": True,
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": TOWER | {"model_type": "smolvlm_vision"},
        },
        ((50, 50), (60, 30)),
        {"max_image_size": {"longest_edge": 56}, "size": {"longest_edge": 112}},
    ),
    "qwen2_vl": Case(
        {
            "model_type": "qwen2_vl",
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "image_token_id": IMAGE_TOKEN,
            "text_config": GROUPED | {"rope_parameters": MROPE},
            "vision_config": QWEN_TOWER | {"embed_dim": 24, "hidden_size": 32, "mlp_ratio": 3},
        },
        ((140, 84), (56, 56)),
    ),
    "qwen2_5_vl-tied": Case(
        {
            "model_type": "qwen2_5_vl",
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "image_token_id": IMAGE_TOKEN,
            "tie_word_embeddings": True,
            "text_config": GROUPED | {"rope_parameters": MROPE},
            "vision_config": QWEN_TOWER
            | {
                "hidden_size": 24,
                "out_hidden_size": 32,
                "intermediate_size": 40,
                "fullatt_block_indexes": [1],
            },
        },
        ((140, 84), (280, 140), (140, 84)),
    ),
    "llama-biases": Case(
        GROUPED
        | {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": True,
            "mlp_bias": True,
        }
    ),
    "mistral": Case(
        GROUPED | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "head_dim": 12}
    ),
    "qwen2-tied": Case(
        GROUPED
        | {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "tie_word_embeddings": True,
        }
    ),
    "qwen3-qk-norm": Case(
        GROUPED
        | {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "head_dim": 24,
            "attention_bias": True,
        }
    ),
}


def pixels_of_squares(parts: Reference, layouts: list[VisualLayout], case: Case) -> Any:
    tiles = sum(layout.tower_sequences for layout in layouts)
    return {"pixel_values": torch.rand(tiles, 3, 56, 56)}


def pixels_of_anyres(parts: Reference, layouts: list[VisualLayout], case: Case) -> Any:
    tiles = max(layout.tower_sequences for layout in layouts)
    repeats = len(layouts) // len(case.images)
    return {
        "pixel_values": torch.rand(len(layouts), tiles, 3, 56, 56),
        "image_sizes": torch.tensor([(h, w) for w, h in case.images] * repeats),
    }


def pixels_of_split(parts: Reference, layouts: list[VisualLayout], case: Case) -> Any:
    repeats = len(layouts) // len(case.images)
    tiles = sum(layout.tower_sequences for layout in layouts)
    # A tile of zeros pads the request, and does not reach the tower.
    pixels = torch.rand(repeats, tiles // repeats + 1, 3, 56, 56)
    pixels[:, -1] = 0
    return {"pixel_values": pixels}


def pixels_of_native(parts: Reference, layouts: list[VisualLayout], case: Case) -> Any:
    grid = torch.tensor(
        [
            (part.count, part.height_patches, part.width_patches)
            for layout in layouts
            for part in layout.segments
        ]
    )
    width = 3 * parts.vision.config.temporal_patch_size * 14**2
    return {
        "pixel_values": torch.rand(int(grid.prod(-1).sum()), width),
        "image_grid_thw": grid,
    }


PIXELS: dict[str, Callable[[Reference, list[VisualLayout], Case], Any]] = {
    "fixed": pixels_of_squares,
    "tile": pixels_of_squares,
    "anyres": pixels_of_anyres,
    "anyres_max": pixels_of_anyres,
    "split": pixels_of_split,
    "smart_resize": pixels_of_native,
}


def inputs_of(parts: Reference, case: Case, text: int, batch: int) -> dict[str, Any]:
    """Prompt and pixels; every image is its marker tokens and then its features."""
    ids = [3] * text
    rule = parts.spec.image_rule
    if rule is None:
        return {"input_ids": torch.tensor([ids] * batch)}
    layouts = image_layouts(rule, case.sizes)
    for layout in layouts:
        ids += [4] * layout.markers + [IMAGE_TOKEN] * layout.features
    inputs = {"input_ids": torch.tensor([ids] * batch)}
    inputs |= PIXELS[rule.rule](parts, layouts * batch, case)
    if rule.rule == "smart_resize":
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE_TOKEN).int()
    return inputs


@pytest.mark.parametrize("name", CASES)
def test_parameters(truth: Truth, name: str) -> None:
    case = CASES[name]
    spec = truth.read(case.config, case.preprocessor)
    parts = truth.parts_of(spec, truth.build(case.config))
    expected = parts.parameters
    assert truth.our_parameters(truth.program(spec)) == expected
    assert sum(expected.values()) == sum(p.numel() for p in parts.whole.parameters())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_forward_is_the_sum_of_its_parts(truth: Truth, name: str, batch: int) -> None:
    case, text = CASES[name], 11
    spec = truth.read(case.config, case.preprocessor)
    parts = truth.parts_of(spec, truth.build(case.config, "cpu"))
    inputs = inputs_of(parts, case, text, batch)
    unread = [getattr(parts.vision, part) for part in case.unread]
    modules = [module for module in (parts.vision, parts.projector) if module is not None]

    for head_tokens, keep in (("all", 0), ("last", 1)):
        result, (whole, *inside) = truth.count_flops(
            partial(parts.whole, **inputs, use_cache=True, logits_to_keep=keep),
            *modules,
            parts.language,
            parts.head,
            *unread,
        )
        for style in truth.styles:
            made = truth.program(
                spec, case.sizes, text=text, batch=batch, head_tokens=head_tokens, **style
            )
            found = truth.our_flops(made)
            assert found["lm_head"] == inside[len(modules) + 1]
            assert found["llm"] == inside[len(modules)]
            assert sum(found.values()) == whole - sum(inside[len(modules) + 2 :])

    cache = result.past_key_values
    prompt = inputs["input_ids"].shape[1]
    assert cache.get_seq_length() == prompt == text + truth.layout(spec, case.sizes).tokens
    made = truth.program(spec, case.sizes, text=text, batch=batch, kv_dtype="fp32")
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert truth.our_cache_bytes(made) == held
    _, (step,) = truth.count_flops(
        lambda: parts.whole(input_ids=torch.full((batch, 1), 3), past_key_values=cache)
    )
    assert sum(truth.our_flops(made, "decode").values()) == step
