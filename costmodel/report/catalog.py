"""What is known: models, GPUs and compression methods as rows and records."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from costmodel.catalog.hardware import list_gpus, load_gpu
from costmodel.catalog.models_io import list_models, load_model
from costmodel.compression.method import list_methods, load_method
from costmodel.evaluation import evaluate_expressions, resolve
from costmodel.ops import ZERO
from costmodel.program import build_program
from costmodel.report.calibrations import calibration_records
from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.specs.quantity import Quantity
from costmodel.specs.workload import Deployment, Workload
from costmodel.vision_tokens import ImageSize, image_layouts

__all__ = [
    "flat",
    "gpu_numbers",
    "gpu_record",
    "gpu_rows",
    "method_record",
    "method_rows",
    "model_pairs",
    "model_record",
    "model_rows",
    "parameters",
]


def parameters(spec: ModelSpec) -> dict[str, int]:
    """Return the parameters of each module of a model, and their total.

    Examples
    --------
    >>> parameters(load_model("llava-1.5-7b"))["total"]
    7063427072
    """
    workload = Workload(text_tokens=1)
    program = build_program(spec, None, workload, Deployment.of())
    modules = ("vision_encoder", "projector", "llm", "lm_head")
    sums = [
        sum((item.count for item in program.weights if item.stage == module), start=ZERO)
        for module in modules
    ]
    values = evaluate_expressions(sums, resolve(program, "prefill"))
    counts = {module: int(value) for module, value in zip(modules, values, strict=True)}
    return counts | {"total": sum(counts.values())}


def _default_tokens(spec: ModelSpec) -> int:
    if spec.image_rule is None or spec.default_image is None:
        return 0
    return image_layouts(spec.image_rule, [ImageSize(*spec.default_image)], [])[0].tokens


def model_rows() -> list[dict[str, Any]]:
    """Return one row per known model."""
    return [_model_row(load_model(name)) for name in list_models()]


def _model_row(spec: ModelSpec) -> dict[str, Any]:
    text, vision = spec.text, spec.vision
    image = spec.default_image
    return {
        "name": spec.name,
        "family": spec.family,
        "parameters": parameters(spec)["total"],
        "layers": text.layers,
        "hidden_size": text.hidden_size,
        "heads": text.heads,
        "kv_heads": text.kv_heads,
        "intermediate_size": text.intermediate_size,
        "vocab_size": text.vocab_size,
        "vision_layers": vision.layers if vision else 0,
        "vision_hidden_size": vision.hidden_size if vision else 0,
        "default_image": f"{image[0]}x{image[1]}" if image else "",
        "visual_tokens": _default_tokens(spec),
    }


def model_record(name: str) -> dict[str, Any]:
    """Return everything known about one model, by name or path."""
    spec = load_model(name)
    return {
        "schema_version": SCHEMA_VERSION,
        **spec.model_dump(mode="json", exclude={"sources", "notes"}),
        "parameters": parameters(spec),
        "default_visual_tokens": _default_tokens(spec),
        "notes": list(spec.notes),
        "sources": [source.model_dump(mode="json") for source in spec.sources],
    }


def model_pairs(name: str) -> list[dict[str, Any]]:
    """Return one row per key of `model_record`."""
    return [{"key": key, "value": value} for key, value in flat(model_record(name))]


def gpu_rows() -> list[dict[str, Any]]:
    """Return one row per known GPU, in SI units."""
    return [_gpu_row(load_gpu(name)) for name in list_gpus()]


def _gpu_row(profile: HardwareProfile) -> dict[str, Any]:
    links = profile.interconnect
    return {
        "name": profile.name,
        "title": profile.title,
        "architecture": profile.architecture,
        "multiprocessors": profile.multiprocessors,
        "memory_bytes": plain(profile.capacity_bytes),
        "bandwidth_bytes_per_s": plain(profile.bandwidth_bytes_per_s),
        "fp16_flops_per_s": plain(profile.peak_flops_per_s("fp16")),
        "fp8_flops_per_s": plain(profile.peak_flops_per_s("fp8")),
        "nvlink_bytes_per_s": plain(
            links.nvlink_per_direction.si if links.nvlink_per_direction else None
        ),
        "tdp_w": plain(profile.tdp.si),
        "aliases": " ".join(profile.aliases),
    }


def gpu_record(name: str) -> dict[str, Any]:
    """Return everything known about one GPU, by name, alias or file."""
    profile = load_gpu(name)
    return {
        "schema_version": SCHEMA_VERSION,
        **profile.model_dump(mode="json"),
        "calibrations": calibration_records(profile),
    }


def gpu_numbers(name: str) -> list[dict[str, Any]]:
    """Return every number of a GPU with its unit, its SI value and its source."""
    profile = load_gpu(name)
    return [
        {
            "what": what,
            "value": plain(number.value),
            "unit": number.unit,
            "si_value": plain(number.si),
            "source": number.source,
            "title": profile.sources[number.source].title if number.source != "user" else "",
            "url": profile.sources[number.source].url if number.source != "user" else "",
        }
        for what, number in _quantities(profile)
    ]


def _quantities(spec: BaseModel, prefix: str = "") -> Iterator[tuple[str, Quantity]]:
    for name in type(spec).model_fields:
        found = getattr(spec, name)
        if name == "peaks":
            for peak in found:
                yield f"peak {peak.dtype} {peak.engine}, {peak.accumulate} sums", peak
        elif isinstance(found, Quantity):
            yield f"{prefix}{name.replace('_', ' ')}", found
        elif isinstance(found, BaseModel):
            yield from _quantities(found, f"{name} ")


def method_rows() -> list[dict[str, Any]]:
    """Return one row per compression method."""
    methods = [load_method(name) for name in list_methods()]
    return [
        {
            "name": method.name,
            "title": method.title,
            "where": method.where,
            "training": method.training,
            "parameters": " ".join(method.Params.model_fields),
            "summary": method.summary,
        }
        for method in methods
    ]


def method_record(name: str) -> dict[str, Any]:
    """Return everything known about one method, its parameters included."""
    method = load_method(name.strip().lower())
    return {
        "schema_version": SCHEMA_VERSION,
        "name": method.name,
        "title": method.title,
        "summary": method.summary,
        "where": method.where,
        "static": method.static,
        "training": method.training,
        "reference": method.reference,
        "url": method.url,
        "unknown": method.unknown,
        "parameters": [
            {
                "name": key,
                "type": _type_name(field),
                "default": plain(field.get_default()) if not field.is_required() else None,
                "required": field.is_required(),
                "description": field.description or "",
            }
            for key, field in method.Params.model_fields.items()
        ],
    }


def _type_name(field: FieldInfo) -> str:
    def name(kind: Any) -> str:
        origin = typing.get_origin(kind)
        if origin is Literal:
            return "|".join(str(choice) for choice in typing.get_args(kind))
        if origin is typing.Annotated:
            return name(typing.get_args(kind)[0])
        if origin in (typing.Union, types.UnionType):
            parts = [part for part in typing.get_args(kind) if part is not type(None)]
            return "|".join(name(part) for part in parts)
        return getattr(kind, "__name__", str(kind))

    return name(field.annotation)


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a record with their dotted names; lists of plain values on one line.

    Examples
    --------
    >>> list(flat({"text": {"layers": 32}, "image": [336, 336]}))
    [('text.layers', '32'), ('image', '336 336')]
    """
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                yield from flat(item, f"{name}.{index}.")
        elif isinstance(value, list):
            yield name, " ".join(map(str, value)) or "-"
        else:
            yield name, "-" if value in (None, "") else str(value)
