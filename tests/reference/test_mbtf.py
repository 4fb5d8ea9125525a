"""Fusion of tower layers that runs, alone and before spatial fusion."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from costmodel import estimate

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.mbtf import MultiBlockTokenFusion, join_maps  # noqa: E402
from costmodel.reference.methods.modules import parameters_of  # noqa: E402
from costmodel.reference.methods.stf import SpatialTokenFusion  # noqa: E402

pytestmark = pytest.mark.verify

MBTF, BOTH = load_method("mbtf"), load_method("mbtf+stf")


def on_meta(make: Any, *sizes: int) -> Any:
    with torch.device("meta"):
        return make(*sizes)


def maps_on_meta(batch: int, blocks: int) -> list[Any]:
    return [torch.empty(batch, 577, 1024, device="meta") for _ in range(blocks)]


@pytest.mark.parametrize("blocks", [1, 8, 24])
@pytest.mark.parametrize("batch", [1, 3])
def test_parameters_tokens_and_products_equal_an_estimate(batch: int, blocks: int) -> None:
    module, maps = on_meta(MultiBlockTokenFusion, 1024, blocks), maps_on_meta(batch, blocks)
    assert module(maps).shape == (batch, 576, 1024)
    flops = count_flops(partial(module, maps))
    assert flops == 2 * batch * 576 * (blocks * 1024 * 4096 + 4096 * 1024)
    found = estimate(
        "llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, batch=batch,
        compress=f"mbtf:blocks={blocks}",
    )  # fmt: skip
    assert flops == found.flops["compression"]
    assert parameters_of(module) == found.params["compression"]
    assert found.tokens["visual_kept"] == 576


def test_both_modules_equal_an_estimate() -> None:
    first = on_meta(MultiBlockTokenFusion, 1024, 8)
    second = on_meta(SpatialTokenFusion, 1024, 4096)
    assert parameters_of(first) == 37_753_856
    assert parameters_of(first) + parameters_of(second) == 171_992_064
    maps = maps_on_meta(2, 8)
    found = estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, batch=2, compress="mbtf+stf")
    assert second(first(maps)).shape == (2, found.tokens["visual_kept"], 4096)
    assert count_flops(lambda: second(first(maps))) == found.flops["compression"]
    assert found.params["compression"] == 171_992_064


def test_maps_are_joined_token_by_token_without_the_class_token() -> None:
    maps = [torch.full((2, 5, 3), float(index)) for index in range(4)]
    for one in maps:
        one[:, 0] = torch.nan
    joined = join_maps(maps, torch.float32)
    assert joined.shape == (2, 4, 12)
    assert joined.isfinite().all()
    assert joined[1, 3].tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3 + [3.0] * 3


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_runs(batch: int, dtype: str) -> None:
    alone = MBTF.prepare(MethodCase(batch, 16, 16, 8, dtype=dtype, params={"blocks": 3}))
    params = {"blocks": 3, "out_width": 6, "tower_dtype": "fp16"}
    both = BOTH.prepare(MethodCase(batch, 16, 4, 8, dtype=dtype, params=params))
    for ready, tokens, width in ((alone, 16, 8), (both, 4, 6)):
        made: Any = ready.run()
        assert made.shape == (batch, tokens, width)
        assert made.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        assert torch.isfinite(made).all()
        assert not made.requires_grad
        assert torch.equal(made, ready.run())
        assert ready.output_tokens == tokens
        assert ready.graph_safe
    assert alone.parameters == 32 * (3 * 8 + 1) + 8 * (32 + 1)
    assert both.parameters == alone.parameters + 128 * (32 + 1) + 6 * (128 + 1)


@pytest.mark.parametrize(("tower", "expected"), [("", [4, 8]), ("fp16", [12, 16])])
def test_launches(tower: str, expected: list[int]) -> None:
    params = {"tower_dtype": tower}
    cases = [(MBTF, MethodCase(2, 16, 16, 8, params=params))]
    cases += [(BOTH, MethodCase(2, 16, 4, 8, params={"out_width": 8, **params}))]
    calls = [count_calls(method.prepare(case).run) for method, case in cases]
    assert [one.launches for one in calls] == expected
    assert [one.waits for one in calls] == [0, 0]


@pytest.mark.parametrize(
    ("kept", "params", "message"),
    [
        (4, {}, "kept: mbtf keeps all 16 tokens, not 4"),
        (16, {"blocks": 0}, "blocks: 0"),
        (16, {"tower_dtype": "int8"}, "tower_dtype: 'int8' is none of"),
    ],
)
def test_what_cannot_be_done(kept: int, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MBTF.prepare(MethodCase(1, 16, kept, 8, params=params))
