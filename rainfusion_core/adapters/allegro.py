"""Allegro: video tokens only, both guidance branches in one batch. Checked against diffusers 0.42.1."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, _, *sizes = arguments["hidden_states"].shape
    return patchified(sizes, (config.patch_size_t, config.patch_size, config.patch_size))


def inputs(made: MadeUp) -> dict[str, Any]:
    from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

    config = made.config
    latents = (1, config.in_channels, *made.latents)
    mask = made.ones(1, made.text)
    arguments = made.arguments(latents, config.caption_channels, encoder_attention_mask=mask)
    (grid,) = grids(config, arguments)
    *tables, times, rows, columns = get_3d_rotary_pos_embed_allegro(
        embed_dim=config.attention_head_dim,
        crops_coords=((0, 0), (grid.height, grid.width)),
        grid_size=(grid.height, grid.width),
        temporal_size=grid.frames,
        device=mask.device,
    )
    places = torch.cartesian_prod(times.long(), rows.long(), columns.long()).T[:, None]
    return {**arguments, "image_rotary_emb": (tuple(tables), tuple(places.contiguous()))}


ALLEGRO = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"),
    grids=grids,
    text="none",
    inputs=inputs,
)
