"""Keep the key blocks whose mean key best matches the mean query of the block.

Source: RainFusion2.0, arXiv 2512.24086, eq. 5 to 8, and its forced first frame and text.
Differs: means and scores are float32 and the top-k is exact, so neither equal scores nor underflow
keep extra blocks; blocks that only touch the first frame or the text are forced too.
"""

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_from_mask
from rainfusion_core.budget import chosen_per_row
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.order import TokenOrder
from rainfusion_core.pooling import block_means


@torch.no_grad()
def select(
    q: Tensor,
    k: Tensor,
    order: TokenOrder,
    *,
    sparsity: float,
    budget: str = "paper",
    key_lengths: Tensor | None = None,
) -> KeptBlocks:
    """Choose the best key blocks of every query block, and add the pinned ones. Never waits.

    Args:
        q: (batch, heads, tokens, head_dim), already in `order`.
        k: (batch, key_heads, tokens, head_dim), already in `order`; key_heads divides heads.
        sparsity: fraction of key blocks to skip, in [0, 1).
        budget: whether pinned blocks count against the budget, see `budget.chosen_per_row`.
        key_lengths: (batch,) int; keys from this place on are padding, and never chosen.

    Raises:
        UnsupportedLayout: q, k and `order` do not fit each other.
    """
    _check_shapes(q, k, order)
    pinned = order.on(q.device).pinned
    chosen = chosen_per_row(order.blocks, order.pinned_blocks, sparsity=sparsity, budget=budget)
    scores = block_scores(q, k, order.block_size, key_lengths)
    dropped = torch.zeros_like(pinned) if budget == "paper" else pinned
    if key_lengths is not None:
        starts = torch.arange(order.blocks, device=q.device) * order.block_size
        padding = (starts >= key_lengths[:, None])[:, None, None]
        dropped = dropped | padding
    best = scores.masked_fill_(dropped, float("-inf")).topk(chosen, dim=-1, sorted=False).indices
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
    mask |= pinned | pinned[:, None]
    if key_lengths is not None:
        mask &= ~padding
    return kept_from_mask(mask, order.block_size, order.blocks if order.pinned_blocks else chosen)


def block_scores(q: Tensor, k: Tensor, block_size: int, key_lengths: Tensor | None) -> Tensor:
    """(batch, heads, query_blocks, key_blocks) float32: mean query times mean key, unscaled."""
    key_means = block_means(k, block_size, key_lengths)
    key_means = key_means.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    # autocast would round the means to half precision
    with torch.autocast(q.device.type, enabled=False):
        return block_means(q, block_size) @ key_means.mT


def _check_shapes(q: Tensor, k: Tensor, order: TokenOrder) -> None:
    if q.shape[-2] != order.tokens or k.shape[-2] != order.tokens:
        raise UnsupportedLayout(
            f"the layout has {order.tokens} tokens, got {q.shape[-2]} queries "
            f"and {k.shape[-2]} keys",
            hint="run this attention dense",
        )
    if q.shape[1] % k.shape[1]:
        raise UnsupportedLayout(
            f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads",
            hint="run this attention dense",
        )
