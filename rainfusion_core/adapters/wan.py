"""Wan 2.1 and 2.2 in all variants, and SkyReels-V2, which shares their blocks.

Video tokens only: the text enters through `attn2`, which stays dense. VACE attends to its control
video in blocks of their own, on the same grid. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    # (batch, channels, frames, height, width); reference images are frames of their own
    return patchified(arguments["hidden_states"].shape[2:], config.patch_size)


def inputs(made: MadeUp) -> dict[str, Any]:
    config, (frames, height, width) = made.config, made.latents
    arguments = made.arguments((1, config.in_channels, *made.latents), config.text_dim)
    if config.image_dim is not None:
        two_images = config.pos_embed_seq_len is not None  # the first and the last frame
        shape = (2, config.pos_embed_seq_len // 2) if two_images else (1, 257)
        arguments["encoder_hidden_states_image"] = made.noise(*shape, config.image_dim)
    if "vace_in_channels" in config:
        arguments["control_hidden_states"] = made.noise(1, config.vace_in_channels, *made.latents)
    if "motion_encoder_size" in config:  # Animate: the first frame is the character's picture
        size, video_frames = config.motion_encoder_size, 4 * (frames - 2) + 1
        pose = (1, config.latent_channels, frames - 1, height, width)
        arguments["pose_hidden_states"] = made.noise(*pose)
        arguments["face_pixel_values"] = made.noise(1, 3, video_frames, size, size)
    return arguments


WAN = ModelAdapter(
    self_attention=re.compile(r"(vace_)?blocks\.\d+\.attn1"),
    grids=grids,
    text="none",
    inputs=inputs,
)
