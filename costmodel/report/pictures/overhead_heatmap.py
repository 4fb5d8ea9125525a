"""Where k-means pays: time to the first token saved over clusters and iterations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.case import Case
from costmodel.charts import Axis, HeatMap, Panels, Picture
from costmodel.compression.composition import parse_compression
from costmodel.errors import UnsupportedError
from costmodel.report.method_runs import image_features, setting
from costmodel.report.picture_kinds import Asked, Kind
from costmodel.studies.prefill import prefill

__all__ = ["KIND"]

_IMPLEMENTATIONS = ("eager", "fused", "compiled", "sklearn")
_CLUSTERS = (4, 8, 16, 32, 64, 96, 144, 192, 256, 384)
_ITERATIONS = (1, 2, 5, 10, 20, 50, 100)
_TITLES = {
    "eager": "a loop of torch kernels",
    "fused": "all images at once, without syncs",
    "compiled": "all images at once, compiled",
    "sklearn": "scikit-learn on the host",
}


def _of_case(asked: Asked) -> Picture:
    case = asked.plain
    clusters = tuple(k for k in _CLUSTERS if k < image_features(case))
    if not clusters:
        raise UnsupportedError("figure", "overhead-heatmap", "images of more than four tokens")
    base = replace(case, request=None)
    if case.request is not None and case.request.compresses:
        if not case.request.label.startswith("cluster"):
            raise UnsupportedError("compress", case.request.label, "cluster, whose k is varied")
        requests = {case.request.label: case}
    else:
        requests = {
            f"impl={name}: {_TITLES[name]}": replace(
                case, request=parse_compression(f"cluster:k={clusters[0]},impl={name}")
            )
            for name in _IMPLEMENTATIONS
        }
    baseline_ms = 1e3 * float(prefill(base).ttft_s)
    charts = tuple(_chart(title, one, clusters, baseline_ms) for title, one in requests.items())
    note = (
        f"{setting(case)}; {baseline_ms:.3g} ms without compression\n"
        "heavy line: break-even; blue pays, orange costs more than it saves"
    )
    title = "What clustering saves after paying for itself"
    if len(charts) == 1:
        return replace(charts[0], title=f"{title}: {charts[0].title}", note=note)
    return Panels(title, charts, columns=2, note=note)


def _chart(title: str, case: Case, clusters: tuple[int, ...], baseline_ms: float) -> HeatMap:
    k, iterations = np.meshgrid(clusters, _ITERATIONS)
    found = prefill(case, k=k.ravel(), I=iterations.ravel())
    ttft = 1e3 * np.broadcast_to(found.ttft_s, k.size).reshape(k.shape)
    own = found.gpu_s["compression"] + found.host_s["compression"]
    own_ms = 1e3 * np.broadcast_to(own, k.size).reshape(k.shape)
    return HeatMap(
        title=title,
        x=Axis("clusters k"),
        y=Axis("Lloyd iterations"),
        z=Axis("time to first token saved", "ms"),
        columns=tuple(float(value) for value in clusters),
        rows=tuple(float(value) for value in _ITERATIONS),
        values=tuple(map(tuple, (baseline_ms - ttft).tolist())),
        level=0.0,
        hover=tuple(
            tuple(
                f"clustering {own:.3g} ms, time to first token {time:.3g} ms"
                for own, time in zip(*rows, strict=True)
            )
            for rows in zip(own_ms.tolist(), ttft.tolist(), strict=True)
        ),
    )


KIND = Kind(
    summary="Break-even of k-means: clusters by iterations, time saved as colour.",
    of_case=_of_case,
)
