"""STF and MBTF over the batch: sizes by hand, times and memory as the facade has them."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel
from costmodel.errors import CostModelError
from costmodel.studies.named.stf_mbtf import STUDY, VARIANTS
from costmodel.studies.study import Finding

MODEL, GPU = "llava-1.5-7b", "rtx-a6000"
FULL, POOL, BASE = "MBTF+STF (144)", "AvgPool 2x2 (144)", "LLaVA-1.5 (576 tokens)"


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("batch", [1, 16])
def test_times_and_memory_are_those_of_an_estimate(finding: Finding, name: str, batch: int) -> None:
    (row,) = (
        row
        for row in records(finding, "One ")
        if (row["variant"], row["batch_per_gpu"]) == (name, batch)
    )
    found = costmodel.estimate(
        MODEL, GPU, text_tokens=64, batch=batch, compress=VARIANTS[name], runtime="eager",
        output_tokens=16,
    )  # fmt: skip
    assert found.baseline is not None
    ttft, tpot = found.time_s["ttft"], found.time_s["tpot"]
    assert row["ttft_ms"] == pytest.approx(1e3 * ttft)
    assert row["with_answer_ms"] == pytest.approx(1e3 * (ttft + 15 * tpot))
    assert [row["ttft_low_ms"], row["ttft_high_ms"]] == pytest.approx(
        [1e3 * side for side in found.interval_s["ttft"]["any_stack"]]
    )
    assert row["ttft_speedup"] == pytest.approx(found.baseline.time_s["ttft"] / ttft)
    assert row["total_gb"] == pytest.approx(found.memory_bytes["total"] / 1e9)
    assert row["fits"] == found.memory_bytes["fits"]
    assert row["first_tokens_per_s_all_gpus"] == pytest.approx(8 * batch / ttft)


def test_parameters_and_products_of_the_public_code(finding: Finding) -> None:
    """LLaVA-STF: MBTF 37,753,856 and STF 134,238,208 instead of the projector's 20,979,712.

    21.74 GMAC of MBTF over 576 tokens, 19.33 of STF over 144; 302 MB in fp16.
    """
    for row in records(finding, "What the fusion modules cost"):
        assert row["extra_parameters_m"] == pytest.approx(151.012352)
        assert row["extra_weights_mb"] == pytest.approx(2 * 151.012352)
        assert row["fusion_gmac_per_image"] == pytest.approx(21.74 + 19.33, abs=0.01)


def test_cache_saved_is_432_tokens_of_half_a_megabyte(finding: Finding) -> None:
    """2 x 32 layers x 4096 x 2 B a token, so that two requests pay 302 MB."""
    for row in records(finding, "What the fusion modules cost"):
        assert row["kv_saved_mb_per_request"] == pytest.approx(432 * 2 * 32 * 4096 * 2 / 1e6)
        assert row["requests_that_pay_the_weights"] == 2


@pytest.mark.parametrize("taps", [1, 4, 8, 24])
@pytest.mark.parametrize("window", [2, 3, 4])
def test_taps_and_windows_by_hand(finding: Finding, taps: int, window: int) -> None:
    (row,) = (
        row
        for row in records(finding, "Taps and windows")
        if (row["taps"], row["window"]) == (taps, window)
    )
    first = 576 * (taps * 1024 * 4096 + 4096 * 1024)
    second = 576 // window**2 * (window**2 * 1024 * 16384 + 16384 * 4096)
    assert row["visual_tokens"] == 576 // window**2
    assert row["fusion_gmac_per_image"] == pytest.approx((first + second) / 1e9)
    found = costmodel.estimate(
        MODEL, GPU, text_tokens=64, runtime="eager",
        compress=f"mbtf+stf:blocks={taps},window={window}",
    )  # fmt: skip
    assert row["ttft_batch_1_ms"] == pytest.approx(1e3 * found.time_s["ttft"])
    assert row["weights_gb"] == pytest.approx(found.memory_bytes["weights"] / 1e9)


def test_one_more_request_does_not_fit(finding: Finding) -> None:
    for row in records(finding, "Largest batch"):
        fits = [
            costmodel.estimate(
                MODEL, GPU, text_tokens=64, output_tokens=16, runtime="eager",
                batch=row["largest_batch"] + more, compress=VARIANTS[row["variant"]],
            ).memory_bytes["fits"]
            for more in (0, 1)
        ]  # fmt: skip
        assert fits == [True, False]


def test_speed_lags_behind_the_flops_of_the_paper(finding: Finding) -> None:
    """7.634 and 1.876 TFLOP of 576 and 144 visual tokens (twice the MACs of A in the paper)."""
    rows = records(finding, "One ")
    gained = [row["ttft_speedup"] for row in rows if row["variant"] == FULL]
    assert all(1 < gain < 7.634 / 1.876 for gain in gained)
    assert "4.07 times fewer FLOPs" in finding.answer
    pooled = [row["ttft_speedup"] for row in rows if row["variant"] == POOL]
    assert all(less < more for less, more in zip(gained, pooled, strict=True))


def test_shared_model_over_two_cards_is_an_estimate(finding: Finding) -> None:
    rows = records(finding, "8 x rtx-a6000")
    one = costmodel.estimate(MODEL, GPU, text_tokens=64, runtime="eager", batch=2, tp=2)
    (row,) = (
        row for row in rows
        if (row["variant"], row["gpus"], row["requests_at_once"]) == (BASE, "4 x TP 2", 8)
    )  # fmt: skip
    assert row["ttft_ms"] == pytest.approx(1e3 * one.time_s["ttft"])
    assert row["total_gb_per_gpu"] == pytest.approx(one.memory_bytes["total"] / 1e9)


def test_eight_cards_share_over_pcie(finding: Finding) -> None:
    """No bridge joins eight: all-reduces take at least 32 / 56.25 of the bridge's rate longer."""
    rows = records(finding, "8 x rtx-a6000")
    (row,) = (
        row for row in rows
        if (row["variant"], row["gpus"], row["requests_at_once"]) == (BASE, "1 x TP 8", 8)
    )  # fmt: skip
    bridged = costmodel.estimate(MODEL, GPU, text_tokens=64, runtime="eager", batch=8, tp=8)
    reduced = sum(op.time_s for op in bridged.ops if op.kind == "collective")
    more_ms = 1e3 * reduced * (56.25 / 32 - 1)
    assert row["ttft_ms"] == pytest.approx(1e3 * bridged.time_s["ttft"] + more_ms, rel=1e-3)


def test_a_gpu_without_a_calibration_is_refused() -> None:
    with pytest.raises(CostModelError, match="v100-sxm"):
        STUDY.run(gpus=("v100-sxm",))


def test_other_settings(finding: Finding) -> None:
    small = STUDY.run(gpus=("a100-80gb-sxm",), batches=(1, 2), blocks=(8,), windows=(2,), devices=2)
    assert "a100-80gb-sxm" in small.answer
    assert small.answer != finding.answer
