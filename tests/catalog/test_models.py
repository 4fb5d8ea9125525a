"""Presets, names, paths, and every way in which a configuration can be wrong."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.catalog.families import model_types
from costmodel.catalog.json_files import LARGEST_FILE_BYTES
from costmodel.catalog.models_io import list_models, load_model, load_preset
from costmodel.errors import ConfigError, CostModelError, SpecError, UnknownNameError

NAMES = (
    "idefics3-8b",
    "internvl3-8b",
    "llama-2-13b",
    "llama-2-70b",
    "llama-2-7b",
    "llama-3-8b",
    "llava-1.5-13b",
    "llava-1.5-7b",
    "llava-next-mistral-7b",
    "llava-next-vicuna-13b",
    "llava-next-vicuna-7b",
    "llava-onevision-qwen2-7b",
    "qwen2-vl-7b",
    "qwen2.5-vl-7b",
    "smolvlm-2b",
    "vila-1.5-3b",
)


def test_known_names() -> None:
    assert list_models() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_preset_loads_and_is_sourced(name: str) -> None:
    spec, preset = load_model(name), load_preset(name)
    assert (spec.name, spec.title) == (name, preset.title)
    assert spec.sources[0].url.startswith("https://huggingface.co/")
    assert spec.sources[0].url.endswith("/blob/main/config.json")
    assert all(source.note or source.what for source in spec.sources)
    assert any("Parameters by these shapes" in note for note in spec.notes)
    assert (spec.vision is None) == name.startswith("llama")
    for alias in preset.aliases:
        assert load_model(alias.upper()).name == name


@pytest.mark.parametrize("name", NAMES)
def test_default_image(name: str) -> None:
    expected = {"llava-1.5-7b": (336, 336), "llava-1.5-13b": (336, 336), "vila-1.5-3b": (384, 384)}
    spec = load_model(name)
    assert spec.default_image == (None if spec.vision is None else expected.get(name, (672, 672)))


def test_reading_one_model_imports_one_family() -> None:
    code = (
        "import sys; from costmodel.catalog.models_io import load_model; "
        "load_model('llava-1.5-7b'); "
        "print([m.rpartition('.')[2] for m in sys.modules if '.families.' in m])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert result.stdout.strip() == "['llava']"


def write(folder: Path, config: object, name: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    return path


def test_file_and_folder_and_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    path = write(folder, load_preset("llama-2-7b").config)
    for written in (str(path), str(folder), f"{folder}{os.sep}"):
        spec = load_model(written)
        assert (spec.name, spec.text.layers) == ("my-model", 32)
    other = write(tmp_path, load_preset("llama-2-7b").config, "small.json")
    assert load_model(str(other)).name == "small"


def test_known_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "llava-1.5-7b", load_preset("llama-2-7b").config)
    assert load_model("llava-1.5-7b").vision is not None
    assert load_model("./llava-1.5-7b").vision is None


def test_existing_folder_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "llava-hf" / "llava-1.5-7b-hf", load_preset("llama-2-7b").config)
    assert load_model("llava-hf/llava-1.5-7b-hf").vision is None


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(load_preset("llama-2-7b").config), "utf-8-sig")
    assert load_model(str(path)).text.layers == 32


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("llava-1.5-7", ["llava-1.5-7", "Did you mean llava-1.5-7b?", "config.json"]),
        ("gpt", ["unknown model 'gpt'", "Known: "]),
        ("", ["unknown model ''"]),
        ("   ", ["unknown model"]),
    ],
)
def test_unknown_name(name: str, parts: list[str]) -> None:
    with pytest.raises(UnknownNameError) as error:
        load_model(name)
    assert all(part in str(error.value) for part in parts)


@pytest.mark.parametrize("name", ["nobody/nothing", "nowhere.json", "./x", "~nobody/x", "a/\0b"])
def test_missing_path(name: str) -> None:
    with pytest.raises(SpecError, match="no such file or folder"):
        load_model(name)


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"holds no config\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1, column 1"),
        ('{"model_type": "llama",\n  "hidden_size" 1}', "line 2, column 17"),
        ("[1]", "expected a JSON object, got list"),
        ("null", "expected a JSON object, got NoneType"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"x": {"b": 1, "b": 2}}', "'b' is given twice"),
        ('{"hidden_size": NaN}', "NaN is no JSON number"),
        ('{"hidden_size": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "invalid JSON"),
    ],
)
def test_bad_json(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(SpecError) as error:
        load_model(str(path))
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"model_type": "\xff"}')
    with pytest.raises(SpecError, match=r"not UTF-8 \(byte 16\)"):
        load_model(str(path))


def test_too_large(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": "' + "x" * LARGEST_FILE_BYTES + '"}')
    with pytest.raises(SpecError, match="too large"):
        load_model(str(path))


def test_config_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(SpecError, match="no regular file"):
        load_model(str(tmp_path))


def test_broken_preprocessor_is_named(tmp_path: Path) -> None:
    write(tmp_path, load_preset("qwen2-vl-7b").config)
    broken = write(tmp_path, "{", "preprocessor_config.json")
    with pytest.raises(SpecError) as error:
        load_model(str(tmp_path))
    assert str(broken) in str(error.value)


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """Return a preset's configuration with one key, dotted, replaced."""
    config = copy.deepcopy(load_preset(name).config)
    *parents, last = path.split(".")
    target = config
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
    return config


BAD_NUMBERS: list[Any] = ["4096", True, 4096.5, 4096.0, -1, 0, 1e30, 10**30, [], {}, None]


@pytest.mark.parametrize("value", BAD_NUMBERS)
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama-2-7b", "hidden_size"),
        ("llama-2-7b", "num_hidden_layers"),
        ("llama-2-7b", "vocab_size"),
        ("llava-1.5-7b", "text_config.intermediate_size"),
        ("llava-1.5-7b", "vision_config.patch_size"),
        ("llava-1.5-7b", "vision_config.num_attention_heads"),
        ("qwen2-vl-7b", "vision_config.embed_dim"),
        ("qwen2.5-vl-7b", "vision_config.window_size"),
        ("internvl3-8b", "max_dynamic_patch"),
        ("idefics3-8b", "scale_factor"),
    ],
)
def test_bad_number(tmp_path: Path, name: str, path: str, value: Any) -> None:
    file = write(tmp_path, changed(name, path, value))
    with pytest.raises(ConfigError) as error:
        load_model(str(file))
    message = str(error.value)
    assert message.startswith(str(file))
    assert path in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        ("llama-2-7b", "model_type", None, "missing key 'model_type' (supported: "),
        ("llama-2-7b", "model_type", 3, "model_type: expected a string"),
        ("llama-2-7b", "model_type", "lama", "did you mean 'llama'?"),
        ("llama-2-7b", "model_type", "gemma3", "is not supported"),
        ("llama-2-7b", "model_type", "../text", "is not supported"),
        ("llama-2-7b", "num_hidden_layers", 10_001, "from 1 to 10000"),
        ("llama-2-7b", "num_attention_heads", 96, "96 does not divide hidden_size (4096)"),
        ("llama-3-8b", "num_key_value_heads", 5, "5 does not divide num_attention_heads (32)"),
        ("llama-2-7b", "hidden_act", 5, "hidden_act: expected a string"),
        ("llama-2-7b", "tie_word_embeddings", "no", "expected true or false"),
        ("llama-2-7b", "attention_bias", 1, "attention_bias: expected true or false"),
        ("llava-1.5-7b", "text_config", "vicuna", "text_config: expected an object"),
        ("llava-1.5-7b", "text_config.model_type", "gemma", "language model 'gemma'"),
        ("llava-1.5-7b", "vision_config.model_type", "clip_vision_modell", "'clip_vision_model'?"),
        ("llava-1.5-7b", "vision_config.num_attention_heads", 15, "15 does not divide hidden_size"),
        ("llava-1.5-7b", "vision_config.patch_size", 500, "500 exceeds image_size (336)"),
        ("llava-1.5-7b", "vision_config.image_size", [336, 224], "two equal numbers"),
        ("llava-1.5-7b", "vision_feature_layer", -26, "from -25 to"),
        ("llava-1.5-7b", "vision_feature_layer", 25, "25 exceeds the tower's 24 layers"),
        ("llava-1.5-7b", "vision_feature_layer", [], "expected a list of whole numbers"),
        ("llava-1.5-7b", "vision_feature_layer", "-2", "expected a whole number"),
        ("llava-1.5-7b", "vision_feature_select_strategy", "half", "one of default, full"),
        ("llava-onevision-qwen2-7b", "vision_feature_select_strategy", "default", "lose a patch"),
        ("llava-onevision-qwen2-7b", "vision_aspect_ratio", "anyres_max_0", "anyres_max_N"),
        ("llava-onevision-qwen2-7b", "vision_aspect_ratio", "anyres", "anyres_max_N"),
        ("llava-next-vicuna-7b", "image_grid_pinpoints", [], "list of [height, width]"),
        ("llava-next-vicuna-7b", "image_grid_pinpoints", [[336]], "expected [height, width]"),
        ("llava-next-vicuna-7b", "image_grid_pinpoints", [[336, "672"]], "whole numbers"),
        ("llava-next-vicuna-7b", "image_grid_pinpoints", [[336, 700]], "no multiple of the tile"),
        ("llava-next-vicuna-7b", "image_grid_pinpoints", [[0, 336]], "no multiple of the tile"),
        ("llava-next-vicuna-7b", "image_grid_pinpoints", "(1x1)", "list of [height, width]"),
        ("qwen2-vl-7b", "vision_config.hidden_size", 4096, "differs from the language model's"),
        ("qwen2.5-vl-7b", "vision_config.fullatt_block_indexes", [32], "32 is no layer"),
        ("qwen2.5-vl-7b", "vision_config.window_size", 20, "smaller than one merged patch"),
        ("internvl3-8b", "downsample_ratio", 0.3, "does not divide the 32 patches"),
        ("internvl3-8b", "downsample_ratio", -0.5, "above zero"),
        ("internvl3-8b", "downsample_ratio", "0.5", "expected a number"),
        ("internvl3-8b", "force_image_size", 224, "differs from vision_config.image_size (448)"),
        ("internvl3-8b", "min_dynamic_patch", 13, "13 exceeds max_dynamic_patch (12)"),
        ("internvl3-8b", "vision_config.image_size", 449, "no multiple of patch_size (14)"),
        ("internvl3-8b", "vision_config.norm_type", "batch_norm", "one of layer_norm, rms_norm"),
        ("internvl3-8b", "llm_config.architectures", ["Phi3ForCausalLM"], "language model"),
        ("idefics3-8b", "scale_factor", 4, "4 does not divide the 26 patches"),
        ("vila-1.5-3b", "llm_cfg", None, "llm_cfg: expected an object, or the file llm/config"),
        ("vila-1.5-3b", "mm_projector_cfg.mm_projector_type", "resampler", "mlp_downsample"),
        ("vila-1.5-3b", "s2", True, "S2"),
        ("vila-1.5-3b", "image_aspect_ratio", "dynamic", "one of resize, pad, square"),
        ("vila-1.5-3b", "mm_vision_select_feature", "patch", "expected 'cls_patch'"),
    ],
)
def test_contradiction(tmp_path: Path, name: str, path: str, value: Any, message: str) -> None:
    config = changed(name, path, value)
    if name == "internvl3-8b" and path.endswith("architectures"):
        del config["llm_config"]["model_type"]
    file = write(tmp_path, config)
    with pytest.raises(ConfigError) as error:
        load_model(str(file))
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "preprocessor", "message"),
    [
        ("llava-1.5-7b", {"crop_size": {"height": 224, "width": 224}}, "image_size (336)"),
        ("llava-next-vicuna-7b", {"image_grid_pinpoints": [[336, 672]]}, "differs from config"),
        ("qwen2-vl-7b", {"patch_size": 16}, "16 differs from the tower's 14"),
        ("qwen2-vl-7b", {"merge_size": 3}, "3 differs from the tower's 2"),
        ("qwen2-vl-7b", {"min_pixels": 1e7}, "expected a whole number"),
        ("qwen2-vl-7b", {"min_pixels": 10**7}, "exceeds max_pixels (1003520)"),
        ("qwen2-vl-7b", {"size": 5}, "expected an object"),
        ("idefics3-8b", {"max_image_size": {"longest_edge": 370.5}}, "longest_edge"),
        ("idefics3-8b", {"do_image_splitting": "yes"}, "expected true or false"),
    ],
)
def test_processor_contradiction(
    tmp_path: Path, name: str, preprocessor: dict[str, Any], message: str
) -> None:
    write(tmp_path, load_preset(name).config)
    write(tmp_path, preprocessor, "preprocessor_config.json")
    with pytest.raises(ConfigError) as error:
        load_model(str(tmp_path))
    assert "preprocessor_config.json" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mm_vision_tower", "openai/clip-vit-large-patch14-337", "'clip-vit-large-patch14-336'?"),
        ("mm_vision_tower", 7, "mm_vision_tower: expected a string"),
        ("mm_projector_type", "resampler", "one of linear, mlp2x_gelu"),
        ("mm_hidden_size", 1152, "differs from the tower's hidden_size (1024)"),
        ("image_aspect_ratio", "anyres_max_9", "one of square, pad, anyres"),
        ("image_aspect_ratio", "anyres", "one of spatial_unpad"),
    ],
)
def test_original_llava_contradiction(
    tmp_path: Path, repo_root: Path, key: str, value: Any, message: str
) -> None:
    source = repo_root / "tests" / "data" / "configs" / "llava-original-7b" / "config.json"
    config = json.loads(source.read_text("utf-8")) | {key: value}
    with pytest.raises(ConfigError) as error:
        load_model(str(write(tmp_path, config)))
    assert message in str(error.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("name", NAMES)
def test_any_value_of_any_key_is_read_or_named(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = load_preset(name).config
    paths = [
        path
        for key, value in config.items()
        for path in ([f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key])
    ]
    file = tmp_path_factory.mktemp("fuzz") / "config.json"

    @given(path=st.sampled_from(paths), value=json_values)
    def check(path: str, value: Any) -> None:
        file.write_text(json.dumps(changed(name, path, value)), "utf-8")
        message = ""
        try:
            assert load_model(str(file)).text.layers > 0
        except CostModelError as error:
            message = str(error)
        assert "\n" not in message

    check()


def test_document_lists_every_type(repo_root: Path) -> None:
    document = (repo_root / "docs" / "models.md").read_text("utf-8")
    missing = [kind for kind in model_types() if f"`{kind}`" not in document]
    assert not missing
