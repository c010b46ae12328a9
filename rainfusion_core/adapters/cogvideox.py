"""CogVideoX 2B, 5B and 1.5: the text stands before the video. Checked against diffusers 0.42.1."""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, frames, _, height, width = arguments["hidden_states"].shape
    patch = (config.patch_size_t or 1, config.patch_size, config.patch_size)  # 1.5 joins two frames
    return patchified((frames, height, width), patch)


def inputs(made: MadeUp) -> dict[str, Any]:
    config, (frames, height, width) = made.config, made.latents
    latents = (1, frames, config.in_channels, height, width)
    arguments = made.arguments(latents, config.text_embed_dim)
    if config.use_rotary_positional_embeddings:
        (grid,) = grids(config, arguments)
        table = made.noise(grid.tokens, config.attention_head_dim).float()
        arguments["image_rotary_emb"] = table.cos(), table.sin()
    if config.ofs_embed_dim is not None:
        arguments["ofs"] = made.noise(1).fill_(2)
    return arguments


COGVIDEOX = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"),
    grids=grids,
    text="first",
    inputs=inputs,
)
