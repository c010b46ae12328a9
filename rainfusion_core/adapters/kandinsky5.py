"""Kandinsky 5: video tokens only, channels last.

The checkpoints for 10 seconds are sparse already: NABLA passes a block mask over tokens that it has
tiled, and such calls stay with diffusers. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, *sizes, _ = arguments["hidden_states"].shape
    return patchified(sizes, config.patch_size)


KANDINSKY5 = ModelAdapter(
    self_attention=re.compile(r"visual_transformer_blocks\.\d+\.self_attention"),
    grids=grids,
    text="none",
)
