"""Give each head that one of the six orders of frame, row and column in which its attention is most blocklike.

Source: PAROAttention, arXiv 2506.16054, of which only descriptions were at hand. Differs: orders and masks
are found online at the first call of a layer and kept for the rest of the run (there offline, on one or two
prompts, and masks of its own for each step of the first half); its score of an order counts nearly empty
blocks by thresholds that are not public, so an order is judged by what that score is for: the mass that the
best blocks would hold; what it does for quantisation is left out.
"""

import math

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.order import AXES, TokenOrder, order_for, per_head
from rainfusion_core.selection.choice import LEAST, exact, keep_of_head
from rainfusion_core.selection.mass import block_mass
from rainfusion_core.selection.sampling import block_sums, spread_places, token_weights
from rainfusion_core.selectors.base import OWN, Call, Method


@exact
def arrange(q: Tensor, k: Tensor, call: Call) -> TokenOrder:
    """The order of each head, found at the first call."""
    found = call.memory.found
    orders = [order_for(call.layout, call.config, name=name).on(q.device) for name in AXES]
    if "orders" not in found:
        found["orders"] = best_mass(q, k, orders, call).argmax(dim=0)
    return per_head(orders, found["orders"])


def best_mass(q: Tensor, k: Tensor, orders: list[TokenOrder], call: Call) -> Tensor:
    """(orders, batch, heads): mass of the best blocks at the wanted sparsity, by a few rows of blocks."""
    shares = []
    for order in orders:
        rows = spread_places(order.blocks, call.option("rows"), q.device) * order.block_size
        rows = (rows[:, None] + torch.arange(order.block_size, device=q.device)).flatten()
        rows = rows.clamp(max=order.tokens - 1)
        # one head at a time: its weights of these rows are many
        heads = [
            _best_mass(order.permute(q[:, [h]]), order.permute(k[:, [h]]), rows, order, call)
            for h in range(q.shape[1])
        ]
        shares.append(torch.cat(heads, dim=1))
    return torch.stack(shares)


def _best_mass(q: Tensor, k: Tensor, rows: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """(batch, heads) mean of the query blocks at `rows`."""
    weights = token_weights(q, k, rows, scale=call.scale, key_lengths=call.key_lengths)
    sums = block_sums(weights, order.block_size).unflatten(-2, (-1, order.block_size)).mean(-2)
    count = max(1, math.ceil(order.blocks * (1 - call.config.sparsity) - 1e-9))
    return sums.topk(count, dim=-1).values.sum(-1).mean(-1)


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The blocks of most mass at the first call."""
    found = call.memory.found
    if "kept" not in found:
        found["kept"] = keep_of_head(scores(q, k, order, call), order, call)
    return found["kept"]


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Logarithm of the exact mass of every pair of blocks."""
    mass = block_mass(q, k, order.block_size, scale=call.scale, key_lengths=call.key_lengths)
    return mass.clamp_(min=LEAST).log_()


METHOD = Method(
    select=select,
    scores=scores,
    arrange=arrange,
    order=OWN,
    options={"rows": 8},
)
