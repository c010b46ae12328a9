"""FLUX.1 with Kontext (diffusers `FluxTransformer2DModel`), FLUX.2 with klein (`Flux2Transformer2DModel`).

Text first, in the double-stream and the single-stream blocks. Reference images, of which FLUX.2 takes
any number, are grids of their own. Text is padded to its full length and not masked, so padding
counts as text. What attends to more keys than there are queries runs dense: an IP-Adapter, and the
klein variant that reuses the keys of its references. Checked against diffusers 0.42.1.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rainfusion_core.adapters.base import ModelAdapter
from rainfusion_core.adapters.positions import grids_at
from rainfusion_core.layout import LatentGrid


def grids(config: Any, arguments: Mapping[str, Any]) -> tuple[LatentGrid, ...]:
    return grids_at(arguments["img_ids"], _positions, images=True)


def _positions(ids: Tensor) -> Tensor:
    """Image number, row and column from ([batch,] tokens, 3 or 4)."""
    return (ids if ids.ndim == 2 else ids[0])[:, :3]


FLUX = ModelAdapter(
    self_attention=re.compile(r"(single_)?transformer_blocks\.\d+\.attn"), grids=grids, text="first"
)
