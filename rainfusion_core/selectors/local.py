"""Keep the key blocks that are nearest in space and time.

Source: none, it is the plainest static pattern. A frame counts as `paths.TIME_WEIGHT` rows; the distance is
that of the middles of blocks. Every row keeps exactly as many blocks as any other.
"""

import functools

import torch
from torch import Tensor

from rainfusion_core.order import TokenOrder, token_places
from rainfusion_core.paths import TIME_WEIGHT
from rainfusion_core.selection.choice import scored
from rainfusion_core.selectors.base import Call, Method


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """The nearer the greater; the same for every head."""
    return _nearness(order).expand(*q.shape[:2], -1, -1).clone()


@functools.lru_cache(maxsize=16)
def _nearness(order: TokenOrder) -> Tensor:
    """(blocks, blocks) float32 on the device of the order."""
    places = token_places(order).float()
    places[:, 0] *= TIME_WEIGHT
    middles = torch.stack([block.mean(dim=0) for block in places.split(order.block_size)])
    return -torch.cdist(middles, middles).to(order.pinned.device)


METHOD = Method(select=scored(scores), scores=scores, static=True)
