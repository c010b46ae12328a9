"""Cosmos 1, 2 and 2.5 (diffusers `CosmosTransformer3DModel`): video tokens only.

Text and image contexts enter through `attn2`, which stays dense. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from rainfusion_core.adapters.base import MadeUp, ModelAdapter, patchified
from rainfusion_core.errors import ModelUnavailable
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    _, _, *sizes = arguments["hidden_states"].shape
    return patchified(sizes, config.patch_size)


def inputs(made: MadeUp) -> dict[str, Any]:
    config = made.config
    latents = (1, config.in_channels, *made.latents)
    if not config.use_crossattn_projection:
        arguments = made.arguments(latents, config.text_embed_dim)
    else:
        arguments = made.arguments(latents, config.crossattn_proj_in_channels)
    if config.img_context_dim_in:
        image = made.noise(1, config.img_context_num_tokens, config.img_context_dim_in)
        arguments["encoder_hidden_states"] = arguments["encoder_hidden_states"], image
    if config.concat_padding_mask:
        _require_torchvision()
        arguments["padding_mask"] = made.noise(1, 1, *made.latents[1:]).zero_()
    return arguments


def _require_torchvision() -> None:
    if find_spec("torchvision") is None:
        raise ModelUnavailable(
            "Cosmos resizes its padding mask with torchvision, which is not installed",
            hint="pip install torchvision",
        )


COSMOS = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn1"),
    grids=grids,
    text="none",
    inputs=inputs,
)
