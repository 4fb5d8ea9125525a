"""A fully resolved question: names looked up, options checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.catalog.hardware import load_gpu
from costmodel.catalog.models_io import load_model
from costmodel.compression.composition import Compression, parse_compression
from costmodel.compression.method import Context, ImageGroup, Request
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError, UnsupportedError
from costmodel.program import Program, build_program
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.specs.workload import Deployment, Workload
from costmodel.timing.model import load_time_model
from costmodel.vision_tokens import (
    ImageSize,
    VideoSize,
    VisualLayout,
    assumed_visual_layout,
    image_layouts,
    parse_image,
    parse_video,
)
from costmodel.vision_tokens.layout import combine

__all__ = ["Case", "prepare"]


@dataclass(frozen=True)
class Case:
    """A fully resolved question: names looked up, options checked.

    Attributes
    ----------
    model : ModelSpec
    gpu : HardwareProfile
    workload : Workload
    deployment : Deployment
    time_model : str
    images : tuple of ImageGroup
        Images of one request, equal layouts grouped; empty without images.
    request : Request or Chain, optional
        Compression, by one method or several; None for none.
    """

    model: ModelSpec
    gpu: HardwareProfile
    workload: Workload
    deployment: Deployment
    time_model: str
    images: tuple[ImageGroup, ...]
    request: Compression | None = None

    @property
    def layout(self) -> VisualLayout | None:
        """Layout of all images of one request; None without images."""
        parts = [group.layout for group in self.images for _ in range(group.units)]
        return combine(parts) if parts else None

    def program(self) -> tuple[Program, CompressionPlan | None]:
        """Build the program, and the plan of the compression if there is one."""
        plan = None
        if self.request is not None and self.request.compresses:
            if not self.images:
                raise UnsupportedError(
                    "compress", self.request.label,
                    f"none: {self.model.name} has no visual tokens here",
                )  # fmt: skip
            plan = self.request.plan(Context(self.model, self.images, self.deployment))
        program = build_program(self.model, self.layout, self.workload, self.deployment, plan)
        return program, plan


def prepare(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    *,
    text_tokens: int,
    images: Sequence[str | tuple[int, int]] = (),
    videos: Sequence[str | tuple[int, int, int]] = (),
    visual_tokens: int | None = None,
    output_tokens: int = 0,
    batch: int = 1,
    compress: str | Compression | Sequence[str | Request] | None = None,
    time_model: str | None = None,
    **deployment: Any,
) -> Case:
    """Look up names and check options.

    Parameters
    ----------
    model, gpu, text_tokens, compress
        As in `estimate`.
    images : sequence of "WIDTHxHEIGHT" or (width, height), optional
        Images of one request [pixels]; the model's default image if neither
        images, videos nor visual tokens are given.
    videos : sequence of "WIDTHxHEIGHTxFRAMES" or (width, height, frames), optional
        Videos of one request.
    visual_tokens : int, optional
        Visual tokens per request instead of what images give; 0 for none.
    output_tokens : int
        Tokens generated per request.
    batch : int
        Requests computed together.
    time_model : str, optional
        Name of a time model; by default ``calibrated`` where a calibration is given or
        the GPU has one, else ``ideal``.
    **deployment
        Options of `costmodel.specs.workload.Deployment.of`: dtype,
        weights_dtype, kv_dtype, runtime, attention, tp, vision_layers, head_tokens.

    Returns
    -------
    Case
    """
    spec = model if isinstance(model, ModelSpec) else load_model(model)
    profile = gpu if isinstance(gpu, HardwareProfile) else load_gpu(gpu)
    request = parse_compression(compress)
    sizes = [parse_image(i) if isinstance(i, str) else _image(i) for i in images]
    clips = [parse_video(v) if isinstance(v, str) else _video(v) for v in videos]
    resolved = Deployment.of(**deployment)
    measured = resolved.calibration is not None or profile.default_calibration is not None
    time_model = time_model or ("calibrated" if measured else "ideal")
    load_time_model(time_model)
    if resolved.calibration is not None and time_model != "calibrated":
        raise InputError(
            "calibration", resolved.calibration, f"no calibration with the time model {time_model}"
        )
    workload = Workload(
        batch=batch,
        text_tokens=text_tokens,
        output_tokens=output_tokens,
        images=tuple((size.width, size.height) for size in sizes),
        videos=tuple((clip.width, clip.height, clip.frames) for clip in clips),
        visual_tokens=visual_tokens,
    )
    groups = _images(spec, workload, sizes, clips)
    if spec.vision is None and resolved.vision_layers is not None:
        raise UnsupportedError(
            "vision-layers", resolved.vision_layers, f"no value: {spec.name} has no vision tower"
        )
    if not groups and workload.visual_tokens is None and sizes:
        raise InputError("image", str(sizes[0]), "an image that gives visual tokens")
    return Case(spec, profile, workload, resolved, time_model, groups, request)


def _image(sides: Sequence[int]) -> ImageSize:
    if len(sides) != 2:
        raise InputError("image", sides, "(width, height) in pixels")
    return ImageSize(*sides)


def _video(sides: Sequence[int]) -> VideoSize:
    if len(sides) != 3:
        raise InputError("video", sides, "(width, height, frames)")
    return VideoSize(*sides)


def _images(
    spec: ModelSpec, workload: Workload, sizes: list[ImageSize], clips: list[VideoSize]
) -> tuple[ImageGroup, ...]:
    if spec.image_rule is None:
        for name, given in (("image", sizes), ("video", clips)):
            if given:
                raise UnsupportedError(
                    name, str(given[0]), f"no {name}: {spec.name} is a text-only model"
                )
        if workload.visual_tokens:
            raise UnsupportedError(
                "visual-tokens", workload.visual_tokens, f"0: {spec.name} is a text-only model"
            )
        return ()
    if workload.visual_tokens is not None:
        if sizes or clips:
            raise InputError(
                "visual-tokens", workload.visual_tokens,
                "either --visual-tokens or --image / --video, not both",
            )  # fmt: skip
        if workload.visual_tokens == 0:
            return ()
        return (ImageGroup(1, assumed_visual_layout(spec.image_rule, workload.visual_tokens)),)
    if not sizes and not clips and spec.default_image is not None:
        sizes = [ImageSize(*spec.default_image)]
    found: dict[VisualLayout, int] = {}
    for layout in image_layouts(spec.image_rule, sizes, clips):
        found[layout] = found.get(layout, 0) + 1
    return tuple(ImageGroup(units, layout) for layout, units in found.items())
