"""FLUX.1 with Kontext (diffusers `FluxTransformer2DModel`), FLUX.2 with klein (`Flux2Transformer2DModel`).

Text first, in the double-stream and the single-stream blocks. Reference images, of which FLUX.2 takes
any number, are grids of their own. Text is padded to its full length and not masked, so padding
counts as text. What attends to more keys than there are queries runs dense: an IP-Adapter, and the
klein variant that reuses the keys of its references. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.adapters.base import MadeUp, ModelAdapter
from rainfusion_core.adapters.positions import grids_at
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    return grids_at(arguments["img_ids"], _positions, images=True)


def _positions(ids: Tensor) -> Tensor:
    """Image number, row and column from ([batch,] tokens, 3 or 4)."""
    return (ids if ids.ndim == 2 else ids[0])[:, :3]


def inputs(made: MadeUp) -> dict[str, Any]:
    """One image: the pipelines pack 2 x 2 latents into a token, and `latents` counts tokens."""
    config, (frames, height, width) = made.config, made.latents
    axes = len(config.axes_dims_rope)
    ids = made.ones(frames, height, width, axes) * 0
    ids[..., 1] = torch.arange(height, device=ids.device)[:, None]
    ids[..., 2] = torch.arange(width, device=ids.device)
    arguments = made.arguments(
        (1, frames * height * width, config.in_channels),
        config.joint_attention_dim,
        img_ids=ids.flatten(0, 2),
        txt_ids=made.ones(made.text, axes) * 0,
        guidance=made.noise(1).fill_(3.5) if config.guidance_embeds else None,
    )
    if "pooled_projection_dim" in config:  # FLUX.1
        arguments["pooled_projections"] = made.noise(1, config.pooled_projection_dim)
    return arguments


FLUX = ModelAdapter(
    self_attention=re.compile(r"(single_)?transformer_blocks\.\d+\.attn"),
    grids=grids,
    text="first",
    inputs=inputs,
)
