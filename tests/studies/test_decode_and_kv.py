"""Requests at the limit of memory: sizes by hand, times as the facade has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import costmodel
from costmodel.case import prepare
from costmodel.catalog.hardware import load_gpu
from costmodel.studies.named.decode_and_kv import STUDY, VARIANTS
from costmodel.studies.serving_bound import served
from costmodel.studies.study import Finding

MODEL = "llava-1.5-7b"
PER_TOKEN = 2 * 32 * 4096 * 2


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize(("name", "tokens"), [("none (576)", 576), ("spatial (64)", 64)])
@pytest.mark.parametrize("gpu", ["rtx-a6000", "a100-80gb-sxm"])
def test_requests_that_fit_by_hand(finding: Finding, name: str, tokens: int, gpu: str) -> None:
    """0.524 MB a token of cache; weights and activations of 8 prefills from the facade."""
    held = costmodel.estimate(MODEL, gpu, text_tokens=64, batch=8, compress=VARIANTS[name])
    free = 0.9 * load_gpu(gpu).capacity_bytes
    free -= held.memory_bytes["weights"] + held.memory_bytes["activations_peak"]
    for row in records(finding, "Requests held"):
        if (row["gpu"], row["method"]) == (gpu, name):
            cache = PER_TOKEN * (tokens + 64 + row["output_tokens"])
            assert row["cache_per_request_mb"] == pytest.approx(cache / 1e6)
            assert row["requests_at_once"] == int(free // cache)


def test_evicted_tokens_take_room_while_they_are_prefilled() -> None:
    """VoCo-LLaMA: 576 tokens of each of P prompts, for the time of a prefill."""
    case = prepare(MODEL, "rtx-a6000", text_tokens=64, compress="voco-llama")
    requests = [served(case, [1], prefill_batch=together).requests[0] for together in (1, 8)]
    missing = 7 * 576 * PER_TOKEN / (PER_TOKEN * 66)
    assert requests[0] - requests[1] >= missing - 1


@pytest.mark.parametrize("name", ["none (576)", "FastV (64)", "VoCo-LLaMA (1)"])
def test_times_are_those_of_estimates(finding: Finding, name: str) -> None:
    for row in records(finding, "Requests held"):
        if row["gpu"] != "rtx-a6000" or row["method"] != name or row["output_tokens"] != 64:
            continue
        first, steps = (
            costmodel.estimate(
                MODEL, "rtx-a6000", text_tokens=64, compress=VARIANTS[name], batch=batch,
                output_tokens=64,
            ).time_s
            for batch in (8, row["requests_at_once"])
        )  # fmt: skip
        assert row["prefill_per_request_ms"] == pytest.approx(1e3 * first["ttft"] / 8)
        assert row["decode_step_ms"] == pytest.approx(1e3 * steps["tpot"])
        seconds = first["ttft"] / 8 + 63 * steps["tpot"] / row["requests_at_once"]
        assert row["requests_per_s"] == pytest.approx(1 / seconds)
        assert row["requests_per_s_low"] < row["requests_per_s"] < row["requests_per_s_high"]


def test_gain_of_one_output_token_is_that_of_prefill(finding: Finding) -> None:
    rows = records(finding, "Requests held")
    for row in rows:
        if row["output_tokens"] == 1:
            (base,) = (
                one["prefill_per_request_ms"] for one in rows
                if one["method"] == "none (576)" and one["output_tokens"] == 1
                and one["gpu"] == row["gpu"]
            )  # fmt: skip
            assert row["gain"] == pytest.approx(base / row["prefill_per_request_ms"])


def test_an_image_in_the_cache(finding: Finding) -> None:
    """302.0 MB of 576 tokens (SparseVLM prints 302.4), 0.5 of one."""
    found = {row["method"]: row["cache_per_image_mb"] for row in records(finding, "An image")}
    assert found["none (576)"] == pytest.approx(302.0, abs=0.1)
    assert found["MBTF+STF (144)"] == pytest.approx(302.0 / 4, abs=0.1)
    assert found["VoCo-LLaMA (1)"] == found["HTC-VLM (1)"] == pytest.approx(PER_TOKEN / 1e6)


def test_where_one_token_overtakes_64(finding: Finding) -> None:
    """Rates on both sides of the length that was found."""
    row = records(finding, "One token")[0]
    at = row["ahead_with_as_many_requests_from"]
    assert at is not None
    cases = [
        prepare(MODEL, row["gpu"], text_tokens=64, compress=text)
        for text in ("voco-llama:k=1", "spatial:k=64", None)
    ]
    outputs = np.array([at // 2, at])
    requests = served(cases[2], outputs).requests
    one, other = (served(case, outputs, requests=requests).requests_per_s for case in cases[:2])
    assert one[0] < other[0]
    assert one[1] > other[1]
    assert f"{at:,}" in finding.answer


def test_nothing_fits_on_a_small_card() -> None:
    """13 GB of weights in half of 24 GB."""
    found = served(prepare(MODEL, "a30", text_tokens=64), [16], usable=0.5)
    assert found.requests[0] == 0
    assert found.requests_per_s[0] == 0
