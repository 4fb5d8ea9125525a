"""What LLM-Viewer reports of a prefill: operations, traffic, footprint and roofline time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from costmodel.conventions.convention import Convention, LayerRun
from costmodel.conventions.viewer_hardware import ViewerDevice
from costmodel.conventions.viewer_ops import Formats, ViewerOp, head_op, layer_ops, op_time_s
from costmodel.specs.model import TextSpec

__all__ = ["ViewerConvention", "ViewerReport"]


@dataclass(frozen=True)
class ViewerReport:
    """The totals of a prefill.

    Attributes
    ----------
    flops : float
        Operations [OP].
    bytes_moved : float
        Traffic of all kinds, which papers print as "total memory" [B].
    activations_stored_bytes : float
        Traffic of written activations, printed as "storing activation" [B].
    kv_cache_bytes : float
        KV cache written [B].
    weights_bytes : float
        Weights read [B].
    footprint_bytes : float
        Weights and KV cache of the layers and the activations that one layer writes [B].
    time_s : float or None
        Sum of the roofline times of the operators [s]; None without a device.
    """

    flops: float
    bytes_moved: float
    activations_stored_bytes: float
    kv_cache_bytes: float
    weights_bytes: float
    footprint_bytes: float
    time_s: float | None


class ViewerConvention(Convention):
    """LLM-Viewer's count; modules choose head and attention.

    Attributes
    ----------
    legacy : bool
        The head and the attention reads of its first versions.
    flash : bool
        Its fused attention.
    """

    counts = "OP"
    source = "LLM-Viewer, model_analyzer.py"
    url = "https://github.com/hahnyuan/LLM-Viewer"
    equation = (
        "sum over layers of 2n(4d^2 + 3dm) + 4n^2d + 5Hn^2 + 18nd (k, v narrower with grouped "
        "heads), and dV for the head"
    )
    legacy: ClassVar[bool] = False
    flash: ClassVar[bool] = False

    def flops(self, text: TextSpec, runs: Sequence[LayerRun], batch: int = 1) -> float:
        """Return the operations of layers and head."""
        # Flash attention does not change the operations, so any device would do.
        return self._report(text, runs, batch, Formats(), None, onchip=None).flops

    def report(
        self,
        text: TextSpec,
        runs: Sequence[LayerRun],
        *,
        batch: int = 1,
        formats: Formats | None = None,
        device: ViewerDevice | None = None,
    ) -> ViewerReport:
        """Return all totals of a prefill.

        Parameters
        ----------
        text : TextSpec
            Shape of the language model.
        runs : sequence of LayerRun
            Tokens of one request, layer by layer.
        batch : int
            Requests.
        formats : Formats, optional
            Bytes per element; two by default.
        device : ViewerDevice, optional
            Bandwidth and peak rates; without it there is no time, and flash attention works
            in blocks as large as a head.

        Returns
        -------
        ViewerReport

        Examples
        --------
        >>> from costmodel.catalog.models_io import load_model
        >>> from costmodel.conventions import load_convention, uniform
        >>> from costmodel.conventions.viewer_hardware import load_viewer_device
        >>> text = load_model("llama-2-7b").text
        >>> found = load_convention("llm-viewer").report(
        ...     text, uniform(text, 606), device=load_viewer_device("nvidia_A6000"))
        >>> f"{found.flops / 1e12:.1f} T, {found.time_s * 1e3:.1f} ms"
        '8.0 T, 58.1 ms'
        """
        onchip = None
        if self.flash:
            onchip = device.onchip_bytes if device is not None else float("inf")
        return self._report(text, runs, batch, formats or Formats(), device, onchip=onchip)

    def _report(
        self,
        text: TextSpec,
        runs: Sequence[LayerRun],
        batch: int,
        formats: Formats,
        device: ViewerDevice | None,
        *,
        onchip: float | None,
    ) -> ViewerReport:
        layers: list[tuple[int, ViewerOp]] = [
            (run.layers, op)
            for run in runs
            for op in layer_ops(
                text, run.tokens, batch=batch, formats=formats, flash_onchip_bytes=onchip,
                kv_heads=text.heads if self.legacy else None,
            )
        ]  # fmt: skip
        every = [*layers, (1, head_op(text, batch=batch, formats=formats, legacy=self.legacy))]
        # The layer that writes most is what the footprint holds beside weights and cache.
        written = max(
            sum(
                op.store_act
                for op in layer_ops(
                    text, run.tokens, batch=batch, formats=formats, flash_onchip_bytes=onchip
                )
            )
            for run in runs
        )
        return ViewerReport(
            flops=sum(times * op.ops for times, op in every),
            bytes_moved=sum(times * op.memory_access for times, op in every),
            activations_stored_bytes=sum(times * op.store_act for times, op in every),
            kv_cache_bytes=sum(times * op.store_kv_cache for times, op in every),
            weights_bytes=sum(times * op.load_weight for times, op in every),
            footprint_bytes=written
            + sum(times * (op.load_weight + op.store_kv_cache) for times, op in layers),
            time_s=None
            if device is None
            else sum(times * op_time_s(op, device, formats) for times, op in every),
        )
