"""HunyuanVideo-1.5: the text, the glyphs and the image's tokens stand behind the video, padding last.

Its processor repeats the mask of keys for every query; here it stays one row.
Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from rainfusion_core.adapters.base import ModelAdapter
from rainfusion_core.adapters.hunyuan_video import grids
from rainfusion_core.masks import KeyMask


def pad(mask: Tensor, padding: Sequence[int], value: bool) -> KeyMask:
    """The only `F.pad` of the processor: it puts the video before the (batch, text) mask."""
    return KeyMask(torch.nn.functional.pad(mask, tuple(padding), value=value).bool())


HUNYUAN_VIDEO15 = ModelAdapter(
    self_attention=re.compile(r"transformer_blocks\.\d+\.attn"),
    grids=grids,
    text="last",
    functions={"pad": pad},
)
