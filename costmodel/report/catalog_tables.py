"""Models, GPUs and compression methods as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from costmodel.catalog.hardware import load_gpu
from costmodel.report import catalog
from costmodel.report.calibrations import calibration_tables
from costmodel.report.text import bullets, facts, quantity, table

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["gpu", "gpus", "method", "methods", "model", "models"]


def models() -> list[RenderableType]:
    """Return the table of known models."""

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        heads = f"{item['heads']}/{item['kv_heads']}"
        tower = f"{item['vision_layers']}x{item['vision_hidden_size']}"
        return (
            item["name"],
            item["family"],
            quantity(item["parameters"]),
            f"{item['layers']}x{item['hidden_size']}",
            heads,
            tower if item["vision_layers"] else "-",
            item["default_image"] or "-",
            f"{item['visual_tokens']:,}" if item["visual_tokens"] else "-",
        )

    columns = (
        "name", "family", "params", "LLM\nshape", "heads\nQ/KV",
        "vision\nshape", "default\nimage", "visual\ntokens",
    )  # fmt: skip
    return [table(columns, map(row, catalog.model_rows()), left=2, gap=1)]


def model(name: str) -> list[RenderableType]:
    """Return everything known about one model."""
    record = catalog.model_record(name)
    sources, notes = record.pop("sources"), record.pop("notes")
    del record["schema_version"]
    cited = [
        f"{source['what']}: {source['url']} ({source['date']})"
        + (f"; {source['note']}" if source["note"] else "")
        for source in sources
    ]
    return [facts(catalog.flat(record)), *bullets("Notes", notes), *bullets("Sources", cited)]


def gpus() -> list[RenderableType]:
    """Return the table of known GPUs."""

    def scaled(value: float | None, factor: float) -> str:
        return f"{value / factor:,.4g}" if value else "-"

    rows = (
        (
            item["name"],
            item["architecture"],
            str(item["multiprocessors"]),
            scaled(item["memory_bytes"], 1e9),
            scaled(item["bandwidth_bytes_per_s"], 1e9),
            scaled(item["fp16_flops_per_s"], 1e12),
            scaled(item["fp8_flops_per_s"], 1e12),
            scaled(item["nvlink_bytes_per_s"], 1e9),
            f"{item['tdp_w']:.0f}",
        )
        for item in catalog.gpu_rows()
    )
    columns = (
        "name", "architecture", "SMs", "memory\nGB", "memory\nGB/s", "fp16\nTFLOP/s",
        "fp8\nTFLOP/s", "NVLink\nGB/s", "power\nW",
    )  # fmt: skip
    return [table(columns, rows, left=2, gap=1)]


def gpu(name: str) -> list[RenderableType]:
    """Return every number of one GPU with its source."""
    record = catalog.gpu_record(name)
    words = ("name", "title", "vendor", "architecture", "chip", "compute_capability")
    numbers = (
        (row["what"], f"{row['value']:g} {row['unit']}", row["source"])
        for row in catalog.gpu_numbers(name)
    )
    sources = [
        f"{key}: {source['title']}, {source['url']} ({source['date']})"
        + (f"; {source['note']}" if source["note"] else "")
        for key, source in record["sources"].items()
    ]
    about = [(word.replace("_", " "), str(record[word])) for word in words]
    about.append(("multiprocessors", str(record["multiprocessors"])))
    about.append(("memory kind", record["memory"]["kind"]))
    about.append(("aliases", ", ".join(record["aliases"]) or "-"))
    return [
        facts(about),
        "",
        table(("number", "value", "source"), numbers, left=3),
        *bullets("Notes", [record["notes"]] if record["notes"] else []),
        *bullets("Sources", sources),
        *calibration_tables(load_gpu(name)),
    ]


def methods() -> list[RenderableType]:
    """Return the table of compression methods."""
    rows = (
        (item["name"], item["where"], item["training"], item["summary"])
        for item in catalog.method_rows()
    )
    return [table(("name", "where it acts", "training", "what it does"), rows, left=4)]


def method(name: str) -> list[RenderableType]:
    """Return one method with its parameters."""
    record = catalog.method_record(name)
    words = ("name", "title", "summary", "where", "training", "reference", "url", "unknown")
    about = [(word, record[word] or "-") for word in words]
    about.insert(4, ("count", "the same for every image" if record["static"] else "by content"))
    parts: list[RenderableType] = [facts(about)]
    if record["parameters"]:
        rows = (
            (
                item["name"],
                item["type"],
                "-" if item["default"] is None else str(item["default"]),
                item["description"],
            )
            for item in record["parameters"]
        )
        parts += ["", table(("parameter", "type", "default", "meaning"), rows, left=4)]
    return parts
