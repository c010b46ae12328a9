"""Kandinsky 5: video tokens only, channels last.

The checkpoints for 10 seconds are sparse already: NABLA passes a block mask over tokens that it has
tiled, and such calls stay with diffusers. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, *sizes, _ = arguments["hidden_states"].shape
    return patchified(sizes, config.patch_size)


def inputs(made: MadeUp) -> dict[str, Any]:
    config, mask = made.config, made.ones(1)
    channels = config.in_visual_dim * 2 + 1 if config.visual_cond else config.in_visual_dim
    arguments = made.arguments(
        (1, *made.latents, channels),
        config.in_text_dim,
        pooled_projections=made.noise(1, config.in_text_dim2),
        text_rope_pos=torch.arange(made.text, device=mask.device),
    )
    (grid,) = grids(config, arguments)
    sides = (grid.frames, grid.height, grid.width)
    arguments["visual_rope_pos"] = [torch.arange(side, device=mask.device) for side in sides]
    return arguments


KANDINSKY5 = ModelAdapter(
    self_attention=re.compile(r"visual_transformer_blocks\.\d+\.self_attention"),
    grids=grids,
    text="none",
    inputs=inputs,
)
