"""Image sizes -> tiles -> patches -> visual tokens; one module per rule."""

from costmodel.vision_tokens.layout import ImageSize, Segment, VideoSize, VisualLayout
from costmodel.vision_tokens.parse import parse_image, parse_video
from costmodel.vision_tokens.registry import assumed_visual_layout, image_layouts, visual_layout

__all__ = [
    "ImageSize",
    "Segment",
    "VideoSize",
    "VisualLayout",
    "assumed_visual_layout",
    "image_layouts",
    "parse_image",
    "parse_video",
    "visual_layout",
]
