"""HunyuanVideo: the text stands behind the video, in blocks of two streams and of one.

Its padding is masked. The token refiner attends to text alone and stays dense.
Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    patch = (config.patch_size_t, config.patch_size, config.patch_size)
    return patchified(arguments["hidden_states"].shape[2:], patch)


def inputs(made: MadeUp) -> dict[str, Any]:
    config = made.config
    return made.arguments(
        (1, config.in_channels, *made.latents),
        config.text_embed_dim,
        encoder_attention_mask=made.ones(1, made.text),
        pooled_projections=made.noise(1, config.pooled_projection_dim),
        guidance=made.noise(1).fill_(6000) if config.guidance_embeds else None,
    )


HUNYUAN_VIDEO = ModelAdapter(
    self_attention=re.compile(r"(single_)?transformer_blocks\.\d+\.attn"),
    grids=grids,
    text="last",
    inputs=inputs,
)
