"""Wan 2.1 and 2.2 (diffusers `WanTransformer3DModel`), text to video and image to video.

Video tokens only: the text enters through `attn2`, which stays dense.
Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import ModelAdapter
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    latents = arguments["hidden_states"]  # (batch, channels, frames, height, width)
    sizes = zip(latents.shape[2:], config.patch_size, strict=True)
    return (LatentGrid(*(size // patch for size, patch in sizes)),)


WAN = ModelAdapter(self_attention=re.compile(r"blocks\.\d+\.attn1"), grids=grids, text="none")
