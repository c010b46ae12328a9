"""Rotary positions of grids that are larger than those a transformer was trained on."""

from typing import Any

import torch
from torch import Tensor, nn

from rainfusion_core.errors import ConfigError

Grid = tuple[int, int, int]


class InterpolatedRotary(nn.Module):
    """Wan's rotary embedding, with the positions of a longer axis laid closer together to span the trained one.

    Position interpolation (arXiv 2306.15595), here for each of frames, height and width by itself. To the
    transformer a larger picture is then the one it knows with finer tokens, and not a wider one. Grids that are
    no larger are left bit-exact.

    Args:
        rotary: diffusers' `WanRotaryPosEmbed`.
        trained: (frames, height, width) in tokens.
    """

    def __init__(self, rotary: Any, trained: Grid) -> None:
        super().__init__()
        self.rotary, self.trained = rotary, trained

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (1, tokens, 1, head_dim), of latents (batch, channels, frames, height, width)."""
        rotary = self.rotary
        grid = [
            size // patch for size, patch in zip(latents.shape[2:], rotary.patch_size, strict=True)
        ]
        if all(size <= trained for size, trained in zip(grid, self.trained, strict=True)):
            return rotary(latents)
        frequencies = torch.atan2(rotary.freqs_sin[1], rotary.freqs_cos[1])  # angles of position 1
        widths = torch.tensor([rotary.t_dim, rotary.h_dim, rotary.w_dim])
        axis_of_channel = torch.arange(3).repeat_interleave(widths).to(frequencies.device)
        positions = torch.cartesian_prod(
            *(
                torch.arange(size, device=frequencies.device) / max(1, size / trained)
                for size, trained in zip(grid, self.trained, strict=True)
            )
        )
        angles = (positions[:, axis_of_channel] * frequencies)[None, :, None]
        return angles.cos(), angles.sin()


def interpolate(transformer: Any, trained: Grid) -> None:
    """Let a transformer take grids beyond the one it was trained on. Changes no weight.

    Args:
        trained: (frames, height, width) in tokens.

    Raises:
        ConfigError: its positions are not of a kind known here.
    """
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    rotary = getattr(transformer, "rope", None)
    if not isinstance(rotary, WanRotaryPosEmbed):
        raise ConfigError(
            f"model.trained_grid: the positions of {type(transformer).__name__} can't be interpolated",
            hint="only Wan's can; leave the key out of the preset",
        )
    transformer.rope = InterpolatedRotary(rotary, trained)
