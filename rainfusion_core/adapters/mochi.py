"""Mochi: the valid text of each prompt stands behind its video, every batch item is a call of its own.

Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, _, *sizes = arguments["hidden_states"].shape
    return patchified(sizes, (1, config.patch_size, config.patch_size))


def inputs(made: MadeUp) -> dict[str, Any]:
    return made.arguments(
        (1, made.config.in_channels, *made.latents),
        made.config.text_embed_dim,
        encoder_attention_mask=made.ones(1, made.text),
    )


MOCHI = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"),
    grids=grids,
    text="last",
    inputs=inputs,
)
