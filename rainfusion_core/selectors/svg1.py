"""Try two bands on a few queries, along the frames and along time, and take the better one for each head.

Source: Sparse VideoGen, arXiv 2502.01776, and its code. Differs: the better band is the one that keeps more
softmax mass of the sampled queries (there: with less error of their outputs); 64 queries at equal distances
(there: random ones of the first 10 000); the first frame is pinned at the end of both orders, as rows too;
the sparsity says what is skipped (there a setting of that name is what is kept).
"""

import functools

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.order import TokenOrder, order_for, per_head, token_numbers
from rainfusion_core.selection.choice import exact, keep_mask, within
from rainfusion_core.selection.sampling import sampled_recall, spread_places, token_weights
from rainfusion_core.selectors.base import OWN, Call, Method

KINDS = ("thw", "hwt")  # spatial and temporal heads


@exact
def arrange(q: Tensor, k: Tensor, call: Call) -> TokenOrder:
    """For each head the order in which the band keeps more."""
    orders = _orders(call, q.device)
    config = SparseConfig(sparsity=call.config.sparsity, budget=call.config.budget)
    video = torch.cat([grid.flatten() for grid in token_numbers(call.layout)[0]]).to(q.device)
    tokens = video[spread_places(len(video), call.option("samples"), q.device)]
    weights = token_weights(
        q, orders[0].permute(k), tokens, scale=call.scale, key_lengths=call.key_lengths
    ).index_select(-1, orders[0].restore)
    pinned = orders[0].pinned | orders[0].pinned[:, None]
    recalls = [
        sampled_recall(weights, tokens, order, band(order, config) | pinned) for order in orders
    ]
    return per_head(orders, torch.stack(recalls).argmax(dim=0))


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The same band of blocks for every head, each in its own order."""
    base = _orders(call, q.device)[0]
    config = SparseConfig(sparsity=call.config.sparsity, budget=call.config.budget)
    return keep_mask(band(base, config), base, call.key_lengths, *q.shape[:2])


@functools.lru_cache(maxsize=16)
def band(order: TokenOrder, config: SparseConfig) -> Tensor:
    """(query_blocks, key_blocks) bool: the band around the diagonal with the wanted density."""
    blocks = torch.arange(order.blocks, device="cpu", dtype=torch.float32)
    return within((blocks[:, None] - blocks).abs(), order, config)


def _orders(call: Call, device: torch.device) -> list[TokenOrder]:
    return [order_for(call.layout, call.config, name=name).on(device) for name in KINDS]


METHOD = Method(
    select=select,
    arrange=arrange,
    order=OWN,
    sink=True,
    takes_mass=False,
    options={"samples": 64},
)
