"""Keep the key blocks whose mean key best matches the mean query of the block.

Source: RainFusion2.0, arXiv 2512.24086, eq. 5 to 8, and its forced first frame and text.
Differs: means and scores are float32 and the top-k is exact, so neither equal scores nor underflow
keep extra blocks; blocks that only touch the first frame or the text are forced too.
"""

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.choice import keep
from rainfusion_core.order import TokenOrder
from rainfusion_core.pooling import block_means
from rainfusion_core.selectors.base import Call, Method


@torch.no_grad()
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """Choose the best key blocks of every query block, and add the pinned ones. Never waits."""
    return keep(scores(q, k, order, call), order, call)


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """(batch, heads, query_blocks, key_blocks) float32: mean query times mean key, scaled."""
    q_means = block_means(q, order.block_size)
    return scores_of_means(q_means, block_means(k, order.block_size, call.key_lengths), call)


def scores_of_means(q_means: Tensor, k_means: Tensor, call: Call) -> Tensor:
    """Both (batch, heads or key_heads, blocks, head_dim) float32."""
    k_means = k_means.repeat_interleave(q_means.shape[1] // k_means.shape[1], dim=1)
    # autocast would round the means to half precision
    with torch.autocast(q_means.device.type, enabled=False):
        return (q_means * call.scale) @ k_means.mT


METHOD = Method(
    select=select, scores=scores, scores_of_means=scores_of_means, order="compact", sink=True
)
