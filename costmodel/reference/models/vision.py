"""A CLIP vision tower with fused qkv, and the projector of LLaVA-1.5."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .attention import AttentionKind, attend
from .shapes import VisionShape

__all__ = ["VisionLayer", "VisionTower", "projector"]


class VisionLayer(nn.Module):  # type: ignore[misc]
    """LayerNorm, fused qkv, attention, output projection; LayerNorm and MLP with QuickGELU."""

    def __init__(self, shape: VisionShape, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, d = shape.heads, shape.width
        self.norm_1 = nn.LayerNorm(d, dtype=dtype)
        self.qkv_proj = nn.Linear(d, 3 * d, dtype=dtype)
        self.o_proj = nn.Linear(d, d, dtype=dtype)
        self.norm_2 = nn.LayerNorm(d, dtype=dtype)
        self.fc1 = nn.Linear(d, shape.mlp_width, dtype=dtype)
        self.fc2 = nn.Linear(shape.mlp_width, d, dtype=dtype)

    def forward(self, hidden: Tensor, kind: AttentionKind) -> Tensor:
        """Run on (images, tokens, width)."""
        joined = self.qkv_proj(self.norm_1(hidden)).unflatten(-1, (3, self.heads, -1))
        query, keys, values = joined.permute(2, 0, 3, 1, 4).unbind()
        attended = attend(query, keys, values, causal=False, kind=kind)
        hidden = hidden + self.o_proj(attended.transpose(1, 2).flatten(2))
        inner = self.fc1(self.norm_2(hidden))
        return hidden + self.fc2(inner * torch.sigmoid(1.702 * inner))


class VisionTower(nn.Module):  # type: ignore[misc]
    """Patches, class token, positions, norm and layers.

    Parameters
    ----------
    shape : VisionShape
        Sizes.
    dtype : torch.dtype
        Format of the weights.
    attention : {"flash", "sdpa", "eager"}
        Implementation in all layers.
    layers_run : int, optional
        Layers that run: all of them as in Hugging Face's code (the default), or one fewer, which
        are those whose output LLaVA reads and where serving engines stop.

    Raises
    ------
    ValueError
        If `layers_run` is neither.
    """

    def __init__(
        self,
        shape: VisionShape,
        dtype: torch.dtype,
        attention: AttentionKind = "flash",
        layers_run: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.attention = shape, attention
        self.layers_run = shape.layers if layers_run is None else layers_run
        if self.layers_run not in (shape.layers - 1, shape.layers):
            raise ValueError(
                f"layers_run: {layers_run} is neither {shape.layers} nor {shape.layers - 1}"
            )
        d = shape.width
        self.patch_embed = nn.Linear(3 * shape.patch_size**2, d, bias=False, dtype=dtype)
        self.class_token = nn.Parameter(torch.empty(d, dtype=dtype))
        self.positions = nn.Parameter(torch.empty(shape.patches + 1, d, dtype=dtype))
        self.pre_norm = nn.LayerNorm(d, dtype=dtype)
        self.layers = nn.ModuleList(VisionLayer(shape, dtype) for _ in range(shape.layers))
        self.post_norm = nn.LayerNorm(d, dtype=dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the features that LLaVA reads, and the pooled class token.

        Parameters
        ----------
        pixels : Tensor
            Shape (images, 3, image_size, image_size).

        Returns
        -------
        features : Tensor
            Output of the last layer but one without the class token, (images, patches, width).
        pooled : Tensor or None
            Normed class token of the last layer, (images, width), where that layer runs.  A
            compiler drops the last layer unless whoever calls keeps this.
        """
        side, grid = self.shape.patch_size, self.shape.grid
        cut = pixels.unflatten(3, (grid, side)).unflatten(2, (grid, side))
        patches = self.patch_embed(cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        first = self.class_token.expand(len(pixels), 1, -1)
        hidden = self.pre_norm(torch.cat((first, patches), dim=1) + self.positions)
        for layer in self.layers[: self.shape.layers - 1]:
            hidden = layer(hidden, self.attention)
        features = hidden[:, 1:]
        if self.layers_run < self.shape.layers:
            return features, None
        last = self.layers[-1](hidden, self.attention)
        return features, self.post_norm(last[:, 0])


def projector(width: int, widths: tuple[int, ...], dtype: torch.dtype) -> nn.Sequential:
    """Return linear layers of these output widths on `width` channels, with GELU between."""
    parts: list[nn.Module] = []
    for into, out in pairwise((width, *widths)):
        parts += [nn.Linear(into, out, dtype=dtype), nn.GELU()]
    return nn.Sequential(*parts[:-1])
