"""Writes the reference pages that follow from code and data: `python docs/generate.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import published_latencies
import why_not_faster
from page_parts import table

import costmodel
from costmodel.catalog.hardware import load_gpu
from costmodel.catalog.models_io import load_model
from costmodel.compression.method import load_method
from costmodel.specs.hardware import ComputeDtype, HardwareProfile
from costmodel.symbols import TABLE

HERE = Path(__file__).resolve().parent / "reference"
NOTICE = "<!-- Written by docs/generate.py; a test fails when it is stale. -->\n\n"


def nomenclature() -> str:
    """Every symbol, by group."""
    text = "# Nomenclature\n\nSymbols of all formulas. Bytes are on one device, GB is 1e9 bytes.\n"
    text += "An index (`s_1`) is the same quantity for one layer group, image kind or width.\n"
    for group in dict.fromkeys(row.group for row in TABLE.values()):
        text += f"\n## {group}\n\n"
        text += table(
            ("Symbol", "In LaTeX", "Meaning", "Unit"),
            (
                (f"`{row.name}`", f"${row.latex}$", row.meaning, row.unit)
                for row in TABLE.values()
                if row.group == group
            ),
        )
    return text


def methods() -> str:
    """Every compression method with its parameters."""
    text = "# Compression methods\n\n"
    text += "Name one with `--compress METHOD[:key=value,...]`; equations by "
    text += "`costmodel formulas MODEL --stage compression --compress METHOD`.\n"
    for name in costmodel.list_methods():
        method = load_method(name)
        text += f"\n## `{name}`: {method.title}\n\n{method.summary}\n\n"
        text += f"- Acts {method.where}; training: {method.training}.\n"
        text += f"- Number of tokens: {'static' if method.static else 'depends on the image'}.\n"
        text += f"- Reference: [{method.reference}]({method.url}).\n"
        if method.unknown:
            text += f"- Not known: {method.unknown}\n"
        fields = method.Params.model_fields
        if fields:
            text += "\n" + table(
                ("Parameter", "Default", "Meaning"),
                (
                    (f"`{key}`", "" if field.default is None else f"`{field.default}`",
                     field.description or "")
                    for key, field in fields.items()
                ),
            )  # fmt: skip
    return text


def _peak(
    gpu: HardwareProfile, dtype: ComputeDtype, engine: Literal["tensor", "vector"] = "tensor"
) -> str:
    rate = gpu.peak_flops_per_s(dtype, engine)
    return f"{rate / 1e12:.4g}" if rate else ""


def devices() -> str:
    """Every GPU profile."""
    rows = []
    for name in costmodel.list_gpus():
        gpu = load_gpu(name)

        rows.append(
            (
                f"`{name}`",
                gpu.title,
                str(gpu.multiprocessors),
                f"{gpu.capacity_bytes / 2**30:.4g}",
                f"{gpu.bandwidth_bytes_per_s / 1e9:.5g}",
                _peak(gpu, "fp32", "vector"),
                _peak(gpu, "fp16"),
                _peak(gpu, "bf16"),
                _peak(gpu, "fp8"),
                _peak(gpu, "int8"),
                f"{gpu.link_bytes_per_s / 1e9:.4g}",
                f"{gpu.tdp.si:g}",
            )
        )
    text = "# Devices\n\nDense peak rates in TFLOP/s (TOP/s), memory in GiB and GB/s, link per "
    text += "direction in GB/s, power in W. Sources: `costmodel gpus show NAME`.\n\n"
    return text + table(
        ("Name", "GPU", "SMs", "Memory", "Bandwidth", "fp32", "fp16", "bf16", "fp8", "int8",
         "Link", "TDP"), rows,
    )  # fmt: skip


def models() -> str:
    """Every model preset."""
    rows = []
    for name in costmodel.list_models():
        model = load_model(name)
        result = costmodel.estimate(model, "a100-80gb-sxm", text_tokens=64)
        text, vision = model.text, model.vision
        tower = f"{vision.model_type} {vision.layers}x{vision.hidden_size}" if vision else ""
        image = "x".join(str(side) for side in model.default_image or ())
        rows.append(
            (
                f"`{name}`",
                model.family,
                f"{result.params['total']:,.0f}",
                f"{text.layers}x{text.hidden_size}, {text.heads}/{text.kv_heads} heads",
                tower,
                image,
                f"{result.tokens['visual_in']:g}" if vision else "",
            )
        )
    page = "# Models\n\nHeads are query/key-value heads; visual tokens are those of the default "
    page += "image, markers included. Sources: `costmodel models show NAME`.\n\n"
    return page + table(
        ("Name", "Family", "Parameters", "Language model", "Vision tower", "Image",
         "Visual tokens"), rows,
    )  # fmt: skip


def published() -> str:
    """Measured latencies of others beside ours."""
    return published_latencies.page(published_latencies.load())


PAGES: dict[str, Callable[[], str]] = {
    "nomenclature.md": nomenclature,
    "methods.md": methods,
    "devices.md": devices,
    "models.md": models,
    "published-latencies.md": published,
}

GUIDES: dict[str, Callable[[], str]] = {"why-not-faster.md": why_not_faster.page}
"""Pages beside those written by hand."""


def main() -> None:
    """Write all pages."""
    HERE.mkdir(exist_ok=True)
    for name, page in GUIDES.items():
        (HERE.parent / name).write_text(NOTICE + page(), encoding="utf-8")
    for name, page in PAGES.items():
        (HERE / name).write_text(NOTICE + page(), encoding="utf-8")


if __name__ == "__main__":
    main()
