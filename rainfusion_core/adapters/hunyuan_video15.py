"""HunyuanVideo-1.5: the text, the glyphs and the image's tokens stand behind the video, padding last.

Its processor repeats the mask of keys for every query; here it stays one row.
Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.adapters.base import MadeUp, ModelAdapter
from rainfusion_core.adapters.hunyuan_video import grids
from rainfusion_core.masks import KeyMask


def pad(mask: Tensor, padding: Sequence[int], value: bool) -> KeyMask:
    """The only `F.pad` of the processor: it puts the video before the (batch, text) mask."""
    return KeyMask(torch.nn.functional.pad(mask, tuple(padding), value=value).bool())


def inputs(made: MadeUp) -> dict[str, Any]:
    """All text is the prompt's: in the blocks glyphs and the image's tokens are no different."""
    config = made.config
    return made.arguments(
        (1, config.in_channels, *made.latents),
        config.text_embed_dim,
        encoder_attention_mask=made.ones(1, made.text),
        encoder_hidden_states_2=made.noise(1, 0, config.text_embed_2_dim),
        encoder_attention_mask_2=made.ones(1, 0),
        image_embeds=made.noise(1, 0, config.image_embed_dim),
    )


HUNYUAN_VIDEO15 = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn"),
    grids=grids,
    text="last",
    inputs=inputs,
    functions={"pad": pad},
)
