"""How each kind of kernel is fitted: sizes, groups, model and bands, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from costmodel.calibration.attention_stacks import RESIDUAL_NOISE, RESIDUAL_SCALES
from costmodel.calibration.memory_samples import FIXED
from costmodel.calibration.residuals import (
    NEAR,
    TILING,
    WIDE,
    WIDE_NOISE,
    WIDE_POINTS,
    WIDE_TILED,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SETUPS", "Setup"]


@dataclass(frozen=True)
class Setup:
    """What a fit of one kind needs to know.

    Attributes
    ----------
    timings : str
        Kind of timings that hold its rows.
    model : str
        Kernel time model.
    sizes : tuple of str
        Columns that are sizes of the model.
    group : tuple of str
        Columns whose values cross-validation leaves out together.
    run : str
        Size that runs within a group, for the list of measured shapes.
    seen : tuple of str
        Sizes that with `run` name a measured shape; empty to keep no list.
    band_size : str
        Size variable of the error bands.
    band_edges : tuple of float
        Inner edges of its bins.
    residual : tuple of float, optional
        Correlation lengths [octaves], one per size, of a correction that carries over to
        other groups; kept where it lowers the error on groups left out.
    features : dict of str to float
        Further coordinates of that correction and their correlation lengths [octaves].
    near : tuple of float, optional
        Correlation lengths of the correction otherwise: one that only interpolates
        within measured groups.
    near_points, near_noise : int, float
        As the next two, for that correction.
    fixed : dict of str to float
        Parameters that are not fitted.
    residual_points : int
        Places the correction keeps.
    residual_noise : float
        Scatter of single rows over what neighbours share.
    where : dict of str to values
        Columns and the values that rows of this kind have.
    rename : dict of str to str
        Columns of timings that are called otherwise in the model.
    max_rows, starts : int
        Rows a fit uses, more are thinned; and starting points.
    least_fitted_s : float
        Shorter rows are not used at all.
    min_time_s : float
        Shorter rows are not judged: clocks of some sources tick in microseconds.
    """

    timings: str
    model: str
    sizes: tuple[str, ...]
    group: tuple[str, ...]
    run: str = ""
    seen: tuple[str, ...] = ()
    band_size: str = "time_s"
    band_edges: tuple[float, ...] = (20e-6, 50e-6, 200e-6, 1e-3)
    residual: tuple[float, ...] | None = None
    features: Mapping[str, float] = field(default_factory=dict)
    near: tuple[float, ...] | None = None
    near_points: int = 800
    near_noise: float = 0.3
    residual_points: int = 400
    residual_noise: float = 0.8
    fixed: Mapping[str, float] = field(default_factory=dict)
    min_time_s: float = 10e-6
    max_rows: int = 4000
    starts: int = 1
    least_fitted_s: float = 0.0
    where: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)

    def rows(self, kind: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that are of this kind."""
        for name, allowed in self.where.items():
            frame = frame[frame[name].isin(allowed)]
        return frame


def _gemm(model: str, dtypes: tuple[object, ...], tiled: bool = False) -> Setup:
    return Setup(
        timings="gemm",
        model=model,
        sizes=("m", "n", "k"),
        group=("n", "k"),
        run="m",
        seen=("n", "k"),
        band_size="m",
        band_edges=(33.0, 129.0, 513.0, 2049.0),
        residual=WIDE_TILED if tiled else WIDE,
        features=TILING if tiled else {},
        residual_points=WIDE_POINTS,
        residual_noise=WIDE_NOISE,
        near=NEAR,
        max_rows=2000,
        # From one start some fits, H100's among them, end in a minimum a sixth worse.
        starts=3,
        least_fitted_s=10e-6,
        where={"dtype": dtypes, "batch": (1,)},
    )


def _memory_bound(kind: str) -> Setup:
    return Setup(
        timings="memory_bound",
        model="rows_and_bytes",
        sizes=("read_bytes", "write_bytes", "rows", "cols"),
        group=("cols", "model", "tp"),
        band_edges=(20e-6, 100e-6),
        fixed=FIXED.get(kind, {}),
        # Clocks tick in microseconds: shorter times are rounded by more than a sixth.
        least_fitted_s=3e-6,
    )


def _attention(kind: str, model: str, run: str) -> Setup:
    lengths = ("kv_len",) if kind == "attention_decode" else ("q_len", "kv_len")
    sizes = ("batch", *lengths, "heads", "kv_heads", "head_dim")
    return Setup(
        timings=kind,
        model=model,
        sizes=sizes,
        group=("heads", "kv_heads", "head_dim"),
        run=run,
        seen=tuple(size for size in sizes if size not in (run, "q_len")),
        band_edges=(20e-6, 50e-6, 200e-6, 1e-3),
        residual=RESIDUAL_SCALES[kind],
        residual_noise=RESIDUAL_NOISE,
        max_rows=2500,
    )


def _collective(model: str, ops: tuple[object, ...]) -> Setup:
    return Setup(
        timings="collective",
        model=model,
        sizes=("bytes", "devices"),
        group=("octave", "devices"),
        where={"op": ops},
        rename={"n_gpus": "devices"},
    )


SETUPS: dict[str, Setup] = {
    "gemm": _gemm("tile_wave", ("fp16", "bf16", "fp32", "tf32"), tiled=True),
    "gemm_w8a16": _gemm("tile_wave_w8a16", ("w8a16",)),
    "gemm_w4a16": _gemm("tile_wave_w4a16", ("w4a16",)),
    **{
        kind: _memory_bound(kind)
        for kind in (
            "rmsnorm",
            "layernorm",
            "activation",
            "gelu",
            "rotary",
            "add",
            "gather",
            "softmax",
            "copy",
            "reduction",
            "argmin",
            "topk",
            "scatter",
        )
    },
    "attention_prefill": _attention("attention_prefill", "flash_causal", "kv_len"),
    "attention_encoder": _attention("attention_encoder", "flash_encoder", "kv_len"),
    "attention_decode": _attention("attention_decode", "flash_decode", "kv_len"),
    "all_reduce": _collective("ring_all_reduce", ("all_reduce", "custom_all_reduce")),
    "all_gather": _collective("ring_all_gather", ("all_gather",)),
}
"""Kind -> how it is fitted."""
