"""Where compression acts: time saved over the place of insertion and the share kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from costmodel.case import Case
from costmodel.charts import Axis, HeatMap, Picture
from costmodel.compression.composition import Compression, parse_compression
from costmodel.compression.method import Context, load_method
from costmodel.compression.method import request as make_request
from costmodel.errors import InputError, SpecError, UnsupportedError
from costmodel.report.method_runs import image_features, setting
from costmodel.report.picture_kinds import Asked, Kind
from costmodel.studies.prefill import prefill

__all__ = ["KIND"]

_SHARES = (0.03, 0.05, 0.11, 0.2, 0.3, 0.5, 0.75)
_LAYERS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72)
_OUTSIDE = {
    "before the LLM": "random",
    "after the encoder": "fastervlm",
    "in the encoder": "tome",
}


def _of_case(asked: Asked) -> Picture:
    case = replace(asked.plain, request=None)
    features = image_features(case)
    kept = [max(1, round(features * share)) for share in _SHARES]
    baseline_ms = 1e3 * float(prefill(case).ttft_s)
    names, values, hovers = [], [], []
    for name, requests in _rows(case, kept):
        cells = [_ttft_ms(case, request) for request in requests]
        if all(cell is None for cell in cells):
            continue
        names.append(name)
        values.append(tuple(
            float("nan") if cell is None else 100 * (1 - cell / baseline_ms) for cell in cells
        ))  # fmt: skip
        hovers.append(tuple(
            "not possible" if request is None or cell is None
            else f"{request.label}: {cell:.4g} ms to the first token"
            for request, cell in zip(requests, cells, strict=True)
        ))  # fmt: skip
    if not values:
        raise UnsupportedError("figure", case.model.name, "a model that a method can act in")
    return HeatMap(
        title="What is saved, by where tokens are dropped and how many stay",
        x=Axis("visual tokens kept from there on", "%"),
        y=Axis("where tokens are dropped"),
        z=Axis("time to first token saved", "%"),
        columns=tuple(100 * share for share in _SHARES),
        rows=tuple(names),
        values=tuple(values),
        level=0.0,
        hover=tuple(hovers),
        note=f"{setting(case)}; {baseline_ms:.3g} ms without compression\nin the LLM: FastV, "
        "which ranks by the attention weights of the layer before, as in its public code",
    )


def _rows(case: Case, kept: list[int]) -> Iterator[tuple[str, list[Compression | None]]]:
    for layer in reversed(_LAYERS):
        if layer < case.model.text.layers:
            yield (
                f"LLM layer {layer}",
                [parse_compression(f"fastv:layer={layer},k={k}") for k in kept],
            )
    context = Context(case.model, case.images, case.deployment)
    for name, method in _OUTSIDE.items():
        yield f"{name} ({method})", [_request(method, k, context) for k in kept]


def _request(name: str, kept: int, context: Context) -> Compression | None:
    method = load_method(name)
    try:
        return make_request(method, method.params_for(kept, context))
    except (InputError, SpecError):
        return None


def _ttft_ms(case: Case, request: Compression | None) -> float | None:
    if request is None:
        return None
    try:
        return 1e3 * float(prefill(replace(case, request=request)).ttft_s)
    except (InputError, SpecError):
        return None


KIND = Kind(
    summary="Time saved over the layer of insertion and the share of tokens kept.",
    of_case=_of_case,
)
