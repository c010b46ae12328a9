"""LTX-Video (diffusers `LTXVideoTransformer3DModel`) and LTX-2 (`LTX2VideoTransformer3DModel`).

Video tokens only: the text enters through `attn2`, which stays dense, as do in LTX-2 the audio, which
is short, and the attention between audio and video. Frames that condition a later part of the video
stand before it in LTX-Video and behind it in LTX-2, as grids of their own.
Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rainfusion_core.adapters.base import MadeUp, ModelAdapter
from rainfusion_core.adapters.positions import grids_at
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    tokens = arguments["hidden_states"].shape[1]
    sizes: list[Any] = [arguments.get(name) for name in ("num_frames", "height", "width")]
    if None not in sizes and (grid := LatentGrid(*sizes)).tokens == tokens:
        return (grid,)
    coordinates = arguments.get("video_coords")
    return () if coordinates is None else grids_at(coordinates, _positions, images=False)


def _positions(coordinates: Tensor) -> Tensor:
    """Frame, row and column from (batch, 3, tokens), or (batch, 3, tokens, begin and end)."""
    first = coordinates[0]
    return (first if first.ndim == 2 else first[..., 0]).T


def inputs(made: MadeUp) -> dict[str, Any]:
    config, (frames, height, width) = made.config, made.latents
    arguments = made.arguments(
        (1, frames * height * width, config.in_channels),
        config.caption_channels,
        encoder_attention_mask=made.ones(1, made.text),
        num_frames=frames,
        height=height,
        width=width,
    )
    if "audio_in_channels" in config:  # LTX-2: 25 tokens of audio a second, 8 frames a latent frame
        audio = -(-frames * 8 * 25 // 24)
        arguments |= {
            "audio_hidden_states": made.noise(1, audio, config.audio_in_channels),
            "audio_encoder_hidden_states": arguments["encoder_hidden_states"],
            "audio_encoder_attention_mask": arguments["encoder_attention_mask"],
            "audio_num_frames": audio,
        }
    return arguments


LTX = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"),
    grids=grids,
    text="none",
    inputs=inputs,
)
