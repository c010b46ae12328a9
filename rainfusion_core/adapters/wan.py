"""Wan 2.1 and 2.2 in all variants, and SkyReels-V2, which shares their blocks.

Video tokens only: the text enters through `attn2`, which stays dense. VACE attends to its control
video in blocks of their own, on the same grid. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    # (batch, channels, frames, height, width); reference images are frames of their own
    return patchified(arguments["hidden_states"].shape[2:], config.patch_size)


WAN = ModelAdapter(
    self_attention=re.compile(r"(vace_)?blocks\.\d+\.attn1"), grids=grids, text="none"
)
