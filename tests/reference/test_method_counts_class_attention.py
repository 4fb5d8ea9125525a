"""FasterVLM and VisPruner: launches and FLOPs against their steps written out here.

No runnable implementation is part of the product.  The steps follow the public code of the
authors, https://github.com/Theia-4869/FasterVLM and https://github.com/Theia-4869/VisPruner,
``llava/model/llava_arch.py``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import pytest
from sympy import Integer

from costmodel.compression.method import Context, parse
from costmodel.estimation import prepare
from costmodel.ops import exact
from costmodel.symbols import sym

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify

Tensor: TypeAlias = Any
PATCHES, WIDTH, HEADS = 576, 64, 4


def keep_attended(tokens: Tensor, attention: Tensor, kept: int) -> Tensor:
    """Keep the tokens with most class attention; one boolean index per image."""
    best = attention.mean(dim=1).topk(kept, dim=1).indices
    mask = torch.zeros(tokens.shape[:2], dtype=torch.bool).scatter_(1, best, True)
    return torch.stack([image[chosen] for image, chosen in zip(tokens, mask, strict=True)])


def drop_duplicates(tokens: Tensor, attention: Tensor, kept: int, before: bool) -> Tensor:
    """Keep half by class attention, and of the others what rounds of matching leave."""
    images = tokens.shape[0]

    def pick(values: Tensor, places: Tensor) -> Tensor:
        return values[torch.arange(images)[:, None].expand_as(places), places]

    order = attention.mean(dim=1).argsort(dim=1, descending=True)
    important, rest = order[:, : kept // 2], order[:, kept // 2 :]
    wanted = kept - kept // 2
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    while (removed := min(8, rest.shape[1] - wanted)) > 0:
        left = pick(unit, rest)
        best = (left[:, ::2] @ left[:, 1::2].transpose(1, 2)).max(dim=-1).values
        distinct = best.argsort(dim=1, descending=True)[:, removed:]
        rest = torch.cat([pick(rest[:, ::2], distinct), rest[:, 1::2]], dim=1)
    chosen = torch.cat([important, rest], dim=1)
    if before:
        return pick(tokens, chosen.sort(dim=1).values)
    return tokens[torch.zeros(tokens.shape[:2], dtype=torch.bool).scatter_(1, chosen, True)]


def planned(compress: str, quantity: str, batch: int) -> int:
    case = prepare("llava-1.5-7b", "a100", text_tokens=64)
    plan = parse(compress).plan(Context(case.model, case.images, case.deployment))
    sizes = {"b": batch, "t": 1, "g": PATCHES, "n": PATCHES + 1, "dv": WIDTH, "c": WIDTH,
             "Hv": HEADS, "ba": 4}  # fmt: skip
    values = {symbol: int(value) for symbol, value in plan.values.items()}
    values |= {sym(name): value for name, value in sizes.items()}
    ops = [op for op in plan.ops if op.matmul or quantity != "flops"]
    return exact(sum((getattr(op, quantity) * op.repeat for op in ops), Integer(0)), values)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kept", [64, 192, 576])
def test_fastervlm(kept: int, batch: int) -> None:
    tokens, attention = torch.rand(batch, PATCHES, WIDTH), torch.rand(batch, HEADS, PATCHES)
    run = partial(keep_attended, tokens, attention, kept)
    assert run().shape == (batch, kept, WIDTH)
    found = count_calls(run)
    compress = f"fastervlm:k={kept}"
    assert planned(compress, "launches", batch) == found.launches
    assert planned(compress, "host_syncs", batch) == found.waits
    assert planned(compress, "flops", batch) == count_flops(run) == 0


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kept", [64, 128, 320, 576])
@pytest.mark.parametrize("position", ["after_projector", "before_projector"])
def test_vispruner(position: str, kept: int, batch: int) -> None:
    tokens, attention = torch.rand(batch, PATCHES, WIDTH), torch.rand(batch, HEADS, PATCHES)
    before = position == "before_projector"
    run = partial(drop_duplicates, tokens, attention, kept, before)
    assert run().numel() == batch * kept * WIDTH
    found = count_calls(run)
    compress = f"vispruner:k={kept},position={position}"
    assert planned(compress, "launches", batch) == found.launches
    assert planned(compress, "flops", batch) == count_flops(run)
    # Places counted on the CPU index tensors of the GPU: each is copied, and waited for.
    copied = found.operators.get("aten::arange", 0)
    assert planned(compress, "host_syncs", batch) == found.waits + copied
