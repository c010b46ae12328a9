"""CogVideoX 2B, 5B and 1.5: the text stands before the video. Checked against diffusers 0.42.1."""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, frames, _, height, width = arguments["hidden_states"].shape
    patch = (config.patch_size_t or 1, config.patch_size, config.patch_size)  # 1.5 joins two frames
    return patchified((frames, height, width), patch)


COGVIDEOX = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"), grids=grids, text="first"
)
