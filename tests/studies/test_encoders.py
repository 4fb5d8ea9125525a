"""Shares of the encoders: work by hand, times as the facade has them."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel
from costmodel.studies.named.encoders import STUDY, TOWERS
from costmodel.studies.study import Finding

IMAGE = "672x672"


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("model", TOWERS)
def test_without_compression_rows_are_estimates(finding: Finding, model: str) -> None:
    found = costmodel.estimate(model, "rtx-a6000", text_tokens=64, images=[IMAGE])
    (row,) = (
        row
        for row in records(finding, "Share")
        if (row["gpu"], row["model"]) == ("rtx-a6000", model) and row["share_of_tokens_kept"] == 1
    )
    assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"])
    assert row["visual_tokens"] == found.tokens["visual_in"]
    own = found.time_s["vision_encoder"] + found.time_s["projector"]
    assert row["encoder_ms"] >= 1e3 * own
    # What is more is host time in these stages.
    assert row["encoder_ms"] <= 1e3 * (own + found.time_s["host_overhead"])
    assert row["encoder_share_low_pct"] < row["encoder_share_pct"] < row["encoder_share_high_pct"]


@pytest.mark.parametrize("share", [0.5, 0.25, 0.11])
def test_fewer_tokens_are_a_free_choice_behind_the_encoder(finding: Finding, share: float) -> None:
    """Spatial sampling, whose own operators take microseconds."""
    (row,) = (
        row
        for row in records(finding, "Share")
        if (row["gpu"], row["model"]) == ("a100-80gb-sxm", "llava-1.5-7b")
        and row["share_of_tokens_kept"] == share
    )
    kept = round(share * 576)
    found = costmodel.estimate(
        "llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress=f"spatial:k={kept}"
    )
    assert row["visual_tokens"] == kept
    assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"], rel=0.005)
    assert row["ttft_ms"] <= 1e3 * found.time_s["ttft"]


def test_work_of_the_towers_by_hand(finding: Finding) -> None:
    """Layers x (4 n d^2 + 2 n d m + 2 n^2 d) and the patches, in GMAC.

    CLIP ViT-L/14-336: 190.96; SigLIP-SO400M-384: 333.2 of 27 layers.
    """
    rows = {row["encoder"]: row for row in records(finding, "Encoders in front")}

    def gmac(layers: int, n: int, d: int, m: int, patches: int) -> float:
        block = 4 * n * d**2 + 2 * n * d * m + 2 * n**2 * d
        return (layers * block + patches * 14 * 14 * 3 * d) / 1e9

    clip, siglip = gmac(24, 577, 1024, 4096, 576), gmac(27, 729, 1152, 4304, 729)
    assert clip == pytest.approx(190.96, abs=0.01)
    assert siglip == pytest.approx(333.2, abs=0.1)
    assert rows["CLIP ViT-L/14-336"]["gmac_per_image"] == pytest.approx(clip)
    assert rows["CLIP ViT-L/14-336, tiles"]["gmac_per_image"] == pytest.approx(5 * clip)
    assert rows["SigLIP-SO400M-384"]["gmac_per_image"] == pytest.approx(siglip)
    qwen = gmac(32, 48 * 48, 1280, 5120, 0) + 48 * 48 * 2 * 14 * 14 * 3 * 1280 / 1e9
    assert rows["Qwen2-VL ViT-675M"]["gmac_per_image"] == pytest.approx(qwen)


def test_shares_rise_as_tokens_fall(finding: Finding) -> None:
    for model in TOWERS:
        for gpu in ("a100-80gb-sxm", "rtx-a6000"):
            found = [
                row for row in records(finding, "Share")
                if (row["gpu"], row["model"]) == (gpu, model)
            ]  # fmt: skip
            shares = [row["encoder_share_pct"] for row in found]
            assert shares == sorted(shares)
            assert found[-1]["speedup_at_most"] < 100 / shares[0]


def test_the_answer_says_who_is_bound_by_the_encoder(finding: Finding) -> None:
    bound = [
        row["model"] for row in records(finding, "Share")
        if row["gpu"] == "a100-80gb-sxm" and row["share_of_tokens_kept"] == 0.11
        and row["encoder_share_pct"] > 50
    ]  # fmt: skip
    assert bound
    assert all(model in finding.answer.split("most of the time in")[1] for model in bound)


def test_convolutional_encoders_are_said_to_be_missing(finding: Finding) -> None:
    assert not any("convnext" in name for name in costmodel.list_models())
    assert "ConvNeXt" in finding.uncertainty
