"""Qwen-Image (diffusers `QwenImageTransformer2DModel`): text to image, edit with any number of references, layers.

Text first; every reference image and every layer is a grid of its own. Where prompts of a batch
differ in length, the padding is masked.
Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from rainfusion_core.adapters.base import MadeUp, ModelAdapter
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    shapes = arguments["img_shapes"][0]  # of the first of the batch; all of them are alike
    if not isinstance(shapes, list):  # one image, as the pipelines with a ControlNet have it
        shapes = [shapes]
    return tuple(LatentGrid(*shape) for shape in shapes)


def inputs(made: MadeUp) -> dict[str, Any]:
    """One image: the pipelines pack 2 x 2 latents into a token, and `latents` counts tokens."""
    config, (frames, height, width) = made.config, made.latents
    arguments = made.arguments(
        (1, frames * height * width, config.in_channels),
        config.joint_attention_dim,
        img_shapes=[[(frames, height, width)]],
    )
    if config.use_additional_t_cond:  # layers
        arguments["additional_t_cond"] = made.ones(1)
    return arguments


QWEN_IMAGE = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn"),
    grids=grids,
    text="first",
    inputs=inputs,
)
