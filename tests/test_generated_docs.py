"""The generated reference pages are what the code and data say now."""

from __future__ import annotations

import csv
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import costmodel
from costmodel.catalog.models_io import load_model

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["nomenclature.md", "methods.md", "devices.md", "models.md", "published-latencies.md"]
MODELS = {
    "llava-1.5-7b": "LLaVA-1.5-7B",
    "llava-1.5-13b": "LLaVA-1.5-13B",
    "llava-next-vicuna-7b": "LLaVA-NeXT-7B",
}
"""Preset -> name in lists of published figures."""


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def published(generator: ModuleType) -> dict[str, Any]:
    data: dict[str, Any] = generator.published_latencies.load()
    return data


@pytest.mark.parametrize("name", PAGES)
def test_page_is_fresh(generator: ModuleType, name: str) -> None:
    page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert page == generator.NOTICE + generator.PAGES[name](), "run: python docs/generate.py"


def test_why_not_faster_is_fresh(generator: ModuleType) -> None:
    path = ROOT / "docs" / "why-not-faster.md"
    written = generator.NOTICE + generator.GUIDES[path.name]()
    assert path.read_text(encoding="utf-8") == written, "run: python docs/generate.py"


def test_printed_parts_add_up_to_the_printed_time() -> None:
    page = (ROOT / "docs" / "why-not-faster.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        for line in page.partition("## Parts of the gap")[2].splitlines() if line.startswith("| `")
    ]  # fmt: skip
    assert len(rows) == 4 * (len(costmodel.list_methods()) - 1)
    for row in rows:
        ttft_ms = float(row[3].partition(" ")[0])
        ideal_ms, *parts_ms = map(float, row[4:])
        assert len(parts_ms) == 6
        assert ideal_ms + sum(parts_ms) == pytest.approx(ttft_ms, abs=8 * 0.05 + 1e-9)


def test_every_page_is_checked(generator: ModuleType) -> None:
    on_disk = {path.name for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert on_disk == set(generator.PAGES) == set(PAGES)
    assert set(generator.GUIDES) == {"why-not-faster.md"}


def test_every_published_latency_is_shown_or_excluded(
    published: dict[str, Any], shared_dir: Path
) -> None:
    path = shared_dir / "published" / "cost_published.csv"
    if not path.exists():
        pytest.skip("no list of published figures")
    with path.open(encoding="utf-8", newline="") as file:
        listed = [
            row for row in csv.DictReader(file)
            if re.search("latency|prefill|ttft|total_time", row["metric"])
        ]  # fmt: skip
    for known in (*published["tables"], *published["excluded"]):
        own = [row for row in listed if is_of(row, known)]
        listed = [row for row in listed if not is_of(row, known)]
        if isinstance(known["rows"], int):
            assert len(own) == known["rows"], known["key"]
            continue
        scale = 1000 if known["metric"].endswith("_s") else 1
        assert Counter(
            (row["method"], row["model"], round(scale * float(row["value"]), 6),
             float(row["tokens"] or "nan") == kept_tokens(row, known) or row["tokens"] == "")
            for row in own
        ) == Counter(
            (row["label"], MODELS[row["model"]], row["measured_ms"], True) for row in known["rows"]
        )  # fmt: skip
    assert listed == []


def is_of(row: dict[str, str], known: dict[str, Any]) -> bool:
    return row["source"].startswith(known["key"]) and row["metric"] == known["metric"]


def kept_tokens(row: dict[str, str], known: dict[str, Any]) -> float:
    """Return the visual tokens of our row with this name and time."""
    for ours in known["rows"]:
        if ours["label"] == row["method"] and ours["measured_ms"] in (
            float(row["value"]), round(1000 * float(row["value"]), 6)
        ):  # fmt: skip
            if "stated_tokens" in ours:
                return float(ours["stated_tokens"])
            stated = ours.get("stand_in", f"k={ours['visual_tokens']}")
            return float(stated.rpartition("=")[2])
    return float("nan")


def test_equivalent_tokens_of_fastv_are_the_mean_over_layers(published: dict[str, Any]) -> None:
    """Mean of the layers before and after K, as in Gumpest/SparseVLMs issue 12."""
    seen = 0
    for row in (row for known in published["tables"] for row in known["rows"]):
        found = re.search(r"K=(\d+),R=(\d+)%", row["label"])
        if found:
            full, layers = row["visual_tokens"], load_model(row["model"]).text.layers
            before, dropped = int(found[1]), int(found[2]) / 100
            mean = full * (before + (1 - dropped) * (layers - before)) / layers
            found_tokens = costmodel.estimate(
                row["model"], "a100", text_tokens=60, compress=row["compress"]
            ).tokens
            assert found_tokens["visual_equivalent"] == pytest.approx(mean, abs=0.01)
            assert row.get("stated_tokens", round(mean)) == round(mean)
            seen += 1
    assert seen == 8


def test_bands_hold_the_time_and_the_first_is_the_wider(
    generator: ModuleType, published: dict[str, Any]
) -> None:
    module = generator.published_latencies
    assert next(iter(module.BANDS)) == "any_stack"
    for known in published["tables"]:
        for runtime in module.RUNTIMES:
            ours = module.predict(module.entries(known)[0], runtime)
            (low, high), (inner_low, inner_high) = ours.bands_ms.values()
            assert 0 < low <= inner_low < ours.time_ms < inner_high <= high
            assert ours.holds("any_stack", low)
            assert not ours.holds("any_stack", 1.01 * high)


def test_excluded_vision_tower_is_taken_out(
    generator: ModuleType, published: dict[str, Any]
) -> None:
    """The same prompt on the language model alone takes nearly as long."""
    module = generator.published_latencies
    (known,) = (known for known in published["tables"] if known["vision_tower"] == "excluded")
    entry = module.entries(known)[0]
    alone = costmodel.estimate(
        "llama-2-7b", entry.gpu, text_tokens=entry.visual_tokens + entry.text_tokens,
        runtime="cuda-graph", attention="flash",
    )  # fmt: skip
    ours = module.predict(entry, "cuda-graph")
    assert ours.time_ms == pytest.approx(1e3 * alone.time_s["ttft"], rel=0.01)
    for band, bounds in ours.bands_ms.items():
        expected = [1e3 * bound for bound in alone.interval_s["ttft"][band]]
        assert bounds == pytest.approx(expected, rel=0.02)
