"""Mochi: the valid text of each prompt stands behind its video, every batch item is a call of its own.

Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, _, *sizes = arguments["hidden_states"].shape
    return patchified(sizes, (1, config.patch_size, config.patch_size))


MOCHI = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"), grids=grids, text="last"
)
