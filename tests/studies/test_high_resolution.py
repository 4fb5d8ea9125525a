"""Costs over resolution: tokens as published, work by hand, times as the facade has them."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel
from costmodel.errors import UnsupportedError
from costmodel.studies.named.high_resolution import METHODS, STUDY
from costmodel.studies.study import Finding

GPU = "a100-80gb-sxm"


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_tokens_are_those_of_the_models(finding: Finding) -> None:
    """LLaVA-NeXT 672x672: 2928; OneVision, 3 x 3 tiles: 81 x 82 + 729; InternVL: 256 a tile."""
    tokens = {
        (row["model"], row["image"]): row["visual_tokens"] for row in records(finding, "Cost")
    }
    assert tokens["llava-next-vicuna-7b", "672x672"] == 2928
    assert tokens["llava-onevision-qwen2-7b", "1152x1152"] == 81 * 82 + 729
    # Beside the 12 tiles a thumbnail, and a start and an end of the image.
    assert tokens["internvl3-8b", "1792x1344"] == 13 * 256 + 2
    assert tokens["qwen2-vl-7b", "1344x1344"] == 48 * 48 + 2


@pytest.mark.parametrize(
    ("model", "image", "method"),
    [
        ("llava-next-vicuna-7b", "672x672", "k-means, eager"),
        ("internvl3-8b", "1344x1344", "DivPrune, released"),
        ("qwen2-vl-7b", "672x672", "DivPrune, running minimum"),
    ],
)
def test_rows_are_estimates(finding: Finding, model: str, image: str, method: str) -> None:
    (row,) = (
        row for row in records(finding, "Cost")
        if (row["model"], row["image"], row["method"]) == (model, image, method)
    )  # fmt: skip
    plain = costmodel.estimate(model, GPU, text_tokens=64, images=[image], runtime="eager")
    kept = round(0.11 * (row["visual_tokens"] - (2 if "llava" not in model else 0)))
    joint = "," if ":" in METHODS[method] else ":"
    found = costmodel.estimate(
        model, GPU, text_tokens=64, images=[image], runtime="eager",
        compress=f"{METHODS[method]}{joint}k={kept}",
    )  # fmt: skip
    assert row["ttft_plain_ms"] == pytest.approx(1e3 * plain.time_s["ttft"])
    assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"])
    assert row["own_ms"] >= 1e3 * found.time_s["compression"]
    # What the method gains is what its tokens save, less its own cost.
    net = row["ttft_plain_ms"] - row["ttft_ms"]
    assert row["saved_at_most_ms"] - row["own_ms"] == pytest.approx(net, rel=1e-6)


def test_work_by_hand(finding: Finding) -> None:
    """DivPrune: 2 n^2 c; k-means: 2 n c (1 + (k - 1)) for the centres and 2 n k c a pass."""
    rows = records(finding, "Cost")
    for row in rows:
        if row["model"] != "llava-next-vicuna-7b":
            continue
        n, k, width = row["visual_tokens"], row["tokens_kept"], 4096
        if row["method"].startswith("DivPrune"):
            assert row["own_gflop"] == pytest.approx(2 * n**2 * width / 1e9, rel=0.01)
        if row["method"] == "k-means, eager":
            assert row["own_gflop"] == pytest.approx(2 * n * k * width * 11 / 1e9, rel=0.01)


def test_growth_is_between_its_ends(finding: Finding) -> None:
    for row in records(finding, "Growth"):
        own = [
            one for one in records(finding, "Cost")
            if (one["model"], one["method"]) == (row["model"], row["method"])
        ]  # fmt: skip
        ratio = own[-1]["visual_tokens"] / own[0]["visual_tokens"]
        assert own[0]["own_ms"] * ratio ** row["own_time"] == pytest.approx(own[-1]["own_ms"])
        if row["method"] != "ToMe":
            assert row["own_flops"] == pytest.approx(2, abs=0.02)


def test_tome_is_linear_in_tiles(finding: Finding) -> None:
    """Its products are within a tile: 3 and 5 tiles, 2 and 10."""
    rows = [row for row in records(finding, "Cost") if row["method"] == "ToMe"]
    assert {row["model"] for row in rows} == {"llava-next-vicuna-7b", "llava-onevision-qwen2-7b"}
    for model, tiles in (("llava-next-vicuna-7b", 5 / 3), ("llava-onevision-qwen2-7b", 10 / 2)):
        first, last = (row["own_gflop"] for row in rows if row["model"] == model)
        assert last / first == pytest.approx(tiles, rel=0.06)


def test_a_model_of_one_resolution_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="grow with the image"):
        STUDY.run(model="llava-1.5-7b")


def test_one_model(finding: Finding) -> None:
    one = STUDY.run(model="internvl3-8b", gpus=("rtx-a6000",), share=0.25)
    assert "25 % of the tokens on rtx-a6000" in one.answer
    assert one.answer != finding.answer
