"""Compare means of cubes of 4 x 4 x 4 tokens, and keep the best of every row.

Source: Video Sparse Attention, arXiv 2505.13389, and its code, without the trained gate: its coarse branch
then only chooses. Differs: a block of 128 is two cubes, and its mass the mean over its query cubes of the
sum over its key cubes; on a grid that cubes do not divide, blocks go on across the cut ones.
"""

import torch
from torch import Tensor

from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import LEAST, scored
from rainfusion_core.selection.pooling import block_means
from rainfusion_core.selection.sampling import block_sums
from rainfusion_core.selectors.base import Call, Method

CUBE_TOKENS = 64


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Logarithm of the mass that the coarse attention gives to every pair of blocks."""
    size = min(CUBE_TOKENS, order.block_size)
    cubes = order.block_size // size
    keys = block_means(k, size, call.key_lengths).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    coarse = (block_means(q, size) * call.scale) @ keys.mT
    if call.key_lengths is not None:
        starts = torch.arange(coarse.shape[-1], device=q.device) * size
        padding = starts >= call.key_lengths.to(q.device)[:, None, None, None]
        coarse = coarse.masked_fill_(padding, float("-inf"))
    mass = block_sums(coarse.softmax(dim=-1), cubes)
    return block_sums(mass.mT, cubes).mT.clamp(min=LEAST).log()


METHOD = Method(select=scored(scores), scores=scores, order="4x4x4")
