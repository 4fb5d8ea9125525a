"""Conventions against figures of the papers that use them, and against the operators."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel
from costmodel.catalog.hardware import list_gpus
from costmodel.catalog.models_io import list_models, load_model
from costmodel.conventions import (
    LayerRun,
    equivalent_tokens,
    kv_cache_bytes,
    list_conventions,
    load_convention,
    uniform,
)
from costmodel.conventions.viewer import ViewerConvention
from costmodel.conventions.viewer_hardware import list_viewer_devices, load_viewer_device
from costmodel.conventions.viewer_ops import Formats, layer_ops, op_time_s
from costmodel.errors import UnknownNameError, UnsupportedError

TEXT = load_model("llama-2-7b").text
TEXT_13B = load_model("llama-2-13b").text
VIEWERS = [name for name in list_conventions() if name.startswith("llm-viewer")]


@pytest.mark.parametrize(
    ("tokens", "tera_macs"),
    [(576, "3.817"), (192, "1.253"), (144, "0.938"), (128, "0.833"), (64, "0.4155"),
     (640, "4.252"), (320, "2.099"), (160, "1.043"), (2880, "20.83"), (5184, "40.62")],
)  # fmt: skip
def test_convention_a(tokens: int, tera_macs: str) -> None:
    """Figures of PyramidDrop, SparseVLM and VScan for a 7B model, visual tokens only."""
    found = load_convention("mac-3mlp").flops(TEXT, uniform(TEXT, tokens)) / 1e12
    assert found == pytest.approx(float(tera_macs), rel=1e-3)
    assert load_convention("flop-3mlp").flops(TEXT, uniform(TEXT, tokens)) == pytest.approx(
        2e12 * found
    )


def test_convention_b() -> None:
    """FastV, table 1: means of the layers for 612 tokens."""
    count = load_convention("mac-2mlp")
    assert f"{count.flops(TEXT, uniform(TEXT, 612)) / 32e9:.1f}" == "99.3"
    assert f"{count.flops(TEXT_13B, uniform(TEXT_13B, 612)) / 40e9:.1f}" == "154.6"


def test_convention_c() -> None:
    """STF's "under 1.9", and ShortV's formula as printed, 2n(4h+3m)h + 4n^2 h."""
    count = load_convention("flop-3mlp")
    assert 1.85e12 < count.flops(TEXT, uniform(TEXT, 144)) < 1.9e12
    n, h, m = 640, 5120, 13824
    assert count.flops(TEXT_13B, uniform(TEXT_13B, n)) == 40 * (
        2 * n * (4 * h + 3 * m) * h + 4 * n * n * h
    )


@pytest.mark.parametrize("name", list_models())
def test_default_is_what_estimates_count(name: str) -> None:
    model = load_model(name)
    window = model.text.sliding_window
    result = costmodel.estimate(model, "a40", text_tokens=64, visual_tokens=None, batch=2)
    tokens = 64 + result.tokens["visual_in"]
    if window is not None and tokens > window:
        pytest.skip("attention in windows")
    expected = load_convention("flop").flops(model.text, uniform(model.text, tokens), 2)
    assert result.flops["llm_prefill"] + result.flops["lm_head"] == expected


@pytest.mark.parametrize(
    ("device", "tokens", "time_ms"),
    [("nvidia_A100_80G", 616, 28.4), ("nvidia_A100_40G", 616, 29.3), ("nvidia_A6000", 616, 59.1),
     ("nvidia_A100_80G", 98, 6.95), ("nvidia_A100_40G", 98, 9.11), ("nvidia_A6000", 98, 18.4)],
)  # fmt: skip
def test_viewer_times_are_those_of_the_tool(device: str, tokens: int, time_ms: float) -> None:
    """What LLM-Viewer itself says of Vicuna-7B in fp16."""
    count = load_convention("llm-viewer")
    assert isinstance(count, ViewerConvention)
    report = count.report(TEXT, uniform(TEXT, tokens), device=load_viewer_device(device))
    assert report.time_s is not None
    assert 1e3 * report.time_s == pytest.approx(time_ms, abs=0.06)
    assert f"{report.flops / 1e12:.2f}" == {616: "8.18", 98: "1.27"}[tokens]


def test_flash_variant_keeps_operations_and_changes_traffic() -> None:
    eager, flash = (load_convention(name) for name in ("llm-viewer", "llm-viewer-flash"))
    assert isinstance(eager, ViewerConvention)
    assert isinstance(flash, ViewerConvention)
    runs = uniform(TEXT, 700)
    assert flash.flops(TEXT, runs) == eager.flops(TEXT, runs)
    blocks = 6  # 700 queries in blocks of 128
    expected = 32 * 2 * (700 * 4096 + 2 * 32 * 700**2 + blocks * 700 * 4096)
    linear = eager.report(TEXT, runs).bytes_moved - 32 * sum(
        op.memory_access
        for op in layer_ops(TEXT, 700)
        if op.name in ("qk_matmul", "sv_matmul", "softmax")
    )
    assert flash.report(TEXT, runs).bytes_moved == pytest.approx(linear + expected)


def test_int8_rate_needs_all_three_formats() -> None:
    """The V100 is slower with eight bits: LLM-Viewer gives it 62 TOP/s."""
    device = load_viewer_device("nvidia_V100")
    (op, *_) = layer_ops(TEXT, 4096)
    assert op_time_s(op, device, Formats(1, 1, 1)) == pytest.approx(op.ops / 62e12)
    assert op_time_s(op, device, Formats(1, 2, 1)) == pytest.approx(op.ops / 112e12)


def test_devices_stand_for_known_profiles() -> None:
    profiles = [p for name in list_viewer_devices() for p in load_viewer_device(name).profiles]
    assert len(profiles) == len(set(profiles))
    assert set(profiles) <= set(list_gpus())


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3000)), min_size=1, max_size=4))
def test_rules_are_means_and_sums(groups: list[tuple[int, int]]) -> None:
    runs = [LayerRun(*group) for group in groups]
    tokens = [n for layers, n in groups for _ in range(layers)]
    assert equivalent_tokens(runs) == pytest.approx(sum(tokens) / len(tokens))
    assert kv_cache_bytes(TEXT, runs) == 2 * 2 * 4096 * sum(tokens)


@pytest.mark.parametrize("name", list_conventions())
@given(tokens=st.integers(1, 4000), batch=st.integers(1, 8))
def test_counts_grow_with_tokens_and_batch(name: str, tokens: int, batch: int) -> None:
    count = load_convention(name)
    now = count.flops(TEXT, uniform(TEXT, tokens), batch)
    assert 0 < now < count.flops(TEXT, uniform(TEXT, tokens + 1), batch)
    assert now == pytest.approx(batch * count.flops(TEXT, uniform(TEXT, tokens)))


@pytest.mark.parametrize("name", list_conventions())
def test_conventions_are_documented(name: str) -> None:
    count = load_convention(name)
    assert count.name == name
    assert all((count.title, count.equation, count.used_by, count.source, inspect.getdoc(count)))
    assert count.url.startswith("https://")
    assert count.counts in {"MAC", "FLOP", "OP"}


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean mac-3mlp"):
        load_convention("mac-3mpl")


def test_section_of_an_estimate() -> None:
    result = costmodel.estimate(
        "llava-1.5-7b", "a40", text_tokens=30, compress="random:k=64", convention="mac-3mlp"
    )
    assert result.convention is not None
    assert result.convention["flops"] == pytest.approx(
        load_convention("mac-3mlp").flops(TEXT, uniform(TEXT, 94))
    )
    assert result.convention["flops_visual"] == pytest.approx(0.4155e12, rel=1e-3)
    assert result.convention["kv_cache_bytes"] == result.memory_bytes["kv_cache"]
    assert result.convention["equivalent_tokens"] == 64
    assert result.convention["true_ratio"] == pytest.approx(2, rel=0.001)
    assert result.convention["llm_viewer"] is None


def test_default_convention_is_the_estimate_itself() -> None:
    result = costmodel.estimate(
        "llava-1.5-7b", "a40", text_tokens=30, compress="random:k=64", convention="flop"
    )
    assert result.convention is not None
    assert result.convention["true_ratio"] == 1


@pytest.mark.parametrize(("gpu", "known"), [("h100-sxm", True), ("b200", False)])
def test_viewer_section_has_a_time_where_the_device_is_known(gpu: str, known: bool) -> None:
    result = costmodel.estimate("llama-2-7b", gpu, text_tokens=640, convention="llm-viewer")
    assert result.convention is not None
    viewer = result.convention["llm_viewer"]
    assert (viewer["time_s"] is not None) is known
    assert result.convention["flops_visual"] is None
    assert viewer["bytes_moved"] > viewer["weights_bytes"] > 13e9


def test_several_devices_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="tp is 2"):
        costmodel.estimate("llama-2-7b", "a40", text_tokens=8, tp=2, convention="flop")
