"""Average pooling that runs."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.avgpool import (  # noqa: E402
    average_windows,
    average_windows_by_mean,
)
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["pool", "mean"])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_shapes(variant: str, window: int, batch: int, dtype: str) -> None:
    case = MethodCase(batch, 144, 144 // window**2, 32, dtype=dtype, variant=variant)
    made = load_method("avgpool").prepare(case)
    out: Any = made.run()
    assert out.shape == (batch, case.kept, 32)
    assert out.dtype == case.torch_dtype
    assert (made.output_tokens, made.parameters, made.graph_safe) == (case.kept, 0, True)


@pytest.mark.parametrize("pool", [average_windows, average_windows_by_mean])
def test_each_token_is_the_mean_of_its_window(pool: Any) -> None:
    tokens = torch.randn(2, 36, 5)
    found = pool(tokens, 3)
    for row in range(2):
        for column in range(2):
            places = [6 * y + x for y in range(3 * row, 3 * row + 3)
                      for x in range(3 * column, 3 * column + 3)]  # fmt: skip
            torch.testing.assert_close(found[:, 2 * row + column], tokens[:, places].mean(1))
    assert torch.equal(pool(tokens, 1), tokens)


@pytest.mark.parametrize("variant", ["pool", "mean"])
def test_one_kernel_and_no_product(variant: str) -> None:
    made = load_method("avgpool").prepare(MethodCase(2, 576, 144, 8, variant=variant))
    assert count_calls(made.run).launches == 1
    assert count_flops(made.run) == 0
    out: Any = made.run()
    assert out.is_contiguous()


def test_cases_that_cannot_be_done() -> None:
    for tokens, kept, message in (
        (36, 10, "kept: 10 is not 36 divided by the square of a whole window"),
        (40, 10, "tokens: 40 form no square grid"),
        (25, 25 // 4, "kept: 6"),
    ):
        with pytest.raises(ValueError, match=message):
            load_method("avgpool").prepare(MethodCase(1, tokens, kept, 4))
    with pytest.raises(ValueError, match="window: 4 does not divide the 6 x 6 grid"):
        average_windows(torch.zeros(1, 36, 2), 4)
