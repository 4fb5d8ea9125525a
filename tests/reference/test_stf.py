"""Spatial fusion that runs: parameters, products, the convolution of the paper, launches."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from costmodel import estimate

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.modules import parameters_of  # noqa: E402
from costmodel.reference.methods.stf import SpatialTokenFusion, unfold  # noqa: E402

pytestmark = pytest.mark.verify

METHOD = load_method("stf")
MODEL_WIDTHS = {"llava-1.5-7b": 4096, "llava-1.5-13b": 5120}


def on_meta(width: int, out: int, window: int) -> Any:
    with torch.device("meta"):
        return SpatialTokenFusion(width, out, window)


@pytest.mark.parametrize("model", MODEL_WIDTHS)
@pytest.mark.parametrize("window", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("batch", [1, 3])
def test_parameters_tokens_and_products_equal_an_estimate(
    model: str, window: int, batch: int
) -> None:
    out = MODEL_WIDTHS[model]
    module = on_meta(1024, out, window)
    tokens = torch.empty(batch, 576, 1024, device="meta")
    kept = (24 // window) ** 2
    assert module(tokens).shape == (batch, kept, out)
    flops = count_flops(partial(module, tokens))
    assert flops == 2 * batch * kept * (window**2 * 1024 * 16384 + 16384 * out)
    assert flops == count_flops(lambda: module.convolve(tokens))
    found = estimate(
        model, "a100-80gb-sxm", text_tokens=64, batch=batch, compress=f"stf:window={window}"
    )
    assert flops == found.flops["compression"]
    assert parameters_of(module) == found.params["compression"]
    assert kept == found.tokens["visual_kept"]


def test_parameters_of_the_released_module() -> None:
    assert parameters_of(on_meta(1024, 4096, 2)) == 134_238_208


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_windows_are_those_of_torch(window: int) -> None:
    tokens = torch.randn(2, 144, 6)
    pixels = tokens.view(2, 12, 12, 6).permute(0, 3, 1, 2)
    columns = torch.nn.functional.unfold(pixels, window, stride=window)
    assert torch.equal(unfold(tokens, window), columns.transpose(1, 2))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kept", [64, 16, 4])
def test_linear_layers_are_the_convolutions_of_the_paper(kept: int, dtype: str) -> None:
    made = []
    for variant in METHOD.variants:
        params = {"out_width": 24}
        case = MethodCase(2, 64, kept, 32, dtype=dtype, variant=variant, params=params)
        ready = METHOD.prepare(case)
        first: Any = ready.run()
        assert torch.equal(first, ready.run())
        assert first.shape == (2, kept, 24)
        assert first.dtype == case.torch_dtype
        assert not first.requires_grad
        assert ready.output_tokens == kept
        assert ready.graph_safe
        made.append(first)
    torch.testing.assert_close(*made)


def test_conv_is_torch_s_layer() -> None:
    module = SpatialTokenFusion(8, 12, 2)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(8, 128, 2, stride=2), torch.nn.GELU(), torch.nn.Conv2d(128, 12, 1)
    )
    for ours, theirs in zip(module.parameters(), layers.parameters(), strict=True):
        theirs.data = ours.data.view_as(theirs)
    tokens = torch.randn(3, 36, 8)
    pixels = tokens.view(3, 6, 6, 8).permute(0, 3, 1, 2)
    expected = layers(pixels).permute(0, 2, 3, 1).reshape(3, 9, 12)
    torch.testing.assert_close(module(tokens), expected)


@pytest.mark.parametrize("batch", [1, 4])
def test_launches(batch: int) -> None:
    def launches(kept: int, variant: str) -> int:
        case = MethodCase(batch, 64, kept, 16, variant=variant, params={"out_width": 8})
        calls = count_calls(METHOD.prepare(case).run)
        assert calls.waits == 0
        return calls.launches

    assert [launches(16, "linear"), launches(64, "linear"), launches(16, "conv")] == [4, 3, 3]


@pytest.mark.parametrize(
    ("tokens", "kept", "message"),
    [
        (577, 144, "tokens: 577 is no square"),
        (576, 100, "kept: no window leaves 100 of 576 tokens, only 1, 4, 9, 16, 36, 64, 144, 576"),
    ],
)
def test_what_cannot_be_done(tokens: int, kept: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METHOD.prepare(MethodCase(1, tokens, kept, 8))
