"""HiRED against its selection written in torch as the authors' code has it.

``modeling_llava.py`` and ``modeling_llava_next.py`` of hasanar1f/HiRED; images without padding.
"""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.case import prepare
from costmodel.evaluation import evaluate

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402

pytestmark = pytest.mark.verify

SIDE, HEADS, WIDTH, HIDDEN = 24, 16, 1024, 4096
PATCHES = SIDE**2


def own(compress: str, model: str, **options: Any) -> dict[str, float]:
    case = prepare(model, "a100", text_tokens=64, compress=compress, **options)
    program, plan = case.program()
    assert plan is not None
    found = evaluate(program)
    mine = [index for index, op in enumerate(found.ops) if op.name in {o.name for o in plan.ops}]
    matmul = [found.ops[index].matmul for index in mine]
    return {
        "kept": plan.kept.mean,
        "flops": float(sum((found.flops * found.repeat)[mine] * matmul)),
        "launches": float(sum((found.launches * found.repeat)[mine])),
        "waits": float(sum((found.host_syncs * found.repeat)[mine])),
    }


def drawn(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def attention(states: Any) -> Any:
    """Softmax of what hooks on the projections of queries and keys kept."""
    query, key = (
        x.view(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2) for x in states.unbind()
    )
    scores = (query @ key.transpose(-2, -1)) * (WIDTH // HEADS) ** -0.5
    return scores.softmax(dim=-1)[:, :, 0, -PATCHES:]


def one_image(late: Any, features: Any, retention: float) -> Any:
    score = attention(late)[0].sum(dim=0)
    mask = torch.zeros_like(score, dtype=torch.bool)
    mask[score.topk(int(PATCHES * retention)).indices] = True
    return features[:, mask, :]


def budgets(early: Any, rest: int, alpha: float, rows: int, columns: int) -> Any:
    marks = torch.zeros_like(early[0], dtype=torch.bool)
    marks[early[0].topk(int(PATCHES * (1 - alpha))).indices] = True
    # As released: rows and columns of tiles, marks in their memory order.
    share = marks.reshape(rows, columns, -1).sum(dim=-1).reshape(-1)
    return torch.clamp((share / share.sum() * rest).int(), max=PATCHES)


def chosen(early: Any, late: Any, retention: float, alpha: float, shape: tuple[int, int]) -> Any:
    early, late = early.sum(dim=1), late.sum(dim=1)
    mask = torch.zeros_like(late, dtype=torch.bool)
    budget = int(len(late) * PATCHES * retention)
    whole = min(int(budget * alpha), PATCHES)
    rest = min(budget - whole, (len(late) - 1) * PATCHES)
    mask[0, late[0].topk(whole).indices] = True
    for tile, number in enumerate(budgets(early, rest, alpha, *shape)):
        mask[tile + 1, late[1:][tile].topk(number).indices] = True
    return mask


def packed(features: Any, mask: Any, shape: tuple[int, int]) -> Any:
    whole = features[0][mask[0]]
    rows, columns = shape
    tiles = features[1:].view(rows, columns, SIDE, SIDE, -1).permute(4, 0, 2, 1, 3).contiguous()
    used = mask[1:].view(rows, columns, SIDE, SIDE).permute(0, 2, 1, 3).contiguous().flatten()
    return torch.cat((whole, tiles.flatten(1)[:, used].transpose(0, 1)))


def tiled(
    first: Any, late: Any, features: Any, retention: float, alpha: float, shape: tuple[int, int]
) -> Any:
    count = shape[0] * shape[1] + 1
    both = [attention(states).split(count) for states in (first, late)]
    masks = [chosen(a, b, retention, alpha, shape) for a, b in zip(*both, strict=True)]
    images = features.split(count)
    return torch.cat([packed(f, mask, shape) for f, mask in zip(images, masks, strict=True)])


@pytest.mark.parametrize("retention", [0.1, 0.2, 0.5])
def test_one_image(retention: float) -> None:
    late, features = drawn(2, 1, PATCHES + 1, WIDTH), drawn(1, PATCHES, WIDTH)

    def run() -> Any:
        return one_image(late, features, retention)

    found, calls = own(f"hired:retention={retention}", "llava-1.5-7b"), count_calls(run)
    assert found["kept"] == run().shape[1]
    assert found["flops"] == count_flops(run)
    assert found["launches"] == calls.launches
    assert found["waits"] == calls.waits


@pytest.mark.parametrize(("retention", "alpha"), [(0.1, 0.3), (0.2, 0.5)])
@pytest.mark.parametrize(
    ("images", "sizes", "shape"),
    [(1, (672, 672), (2, 2)), (1, (1008, 336), (1, 3)), (2, (672, 336), (1, 2))],
)
def test_tiles(
    images: int, sizes: tuple[int, int], shape: tuple[int, int], retention: float, alpha: float
) -> None:
    sequences = images * (shape[0] * shape[1] + 1)
    first, late = (
        torch.stack([drawn(sequences, PATCHES + 1, WIDTH + n)[..., :WIDTH] for n in pair])
        for pair in ((0, 1), (2, 3))
    )
    first, late = first.contiguous(), late.contiguous()
    # Width matters for bytes alone; few columns are enough to be counted.
    features = drawn(sequences, PATCHES, 8)

    def run() -> Any:
        return tiled(first, late, features, retention, alpha, shape)

    compress = f"hired:retention={retention},alpha={alpha}"
    found = own(compress, "llava-next-vicuna-7b", images=(sizes,) * images)
    calls = count_calls(run)
    assert found["flops"] == count_flops(run)
    assert found["launches"] == calls.launches
    assert found["waits"] == calls.waits
    # A tile's share is rounded down.
    lost = found["kept"] - len(run())
    assert 0 <= lost <= images * shape[0] * shape[1]
