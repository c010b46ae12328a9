"""Keep what is near in a frame, in a band that halves whenever the distance in time doubles.

Source: Radial Attention, arXiv 2506.19852, and its code. Differs: the sparsity chooses the decay (0.2 for
Wan and 0.95 for HunyuanVideo there); a pair of blocks is kept if a third of its token pairs is, judged by
16 tokens of each (there: by the columns that hold any); the bands never get narrower than a block, so on a
grid of few frames there is a least density.
"""

from math import ceil

import torch
from torch import Tensor

from rainfusion_core.config import SparseConfig
from rainfusion_core.order import TokenOrder, token_places
from rainfusion_core.selection.choice import fixed, within
from rainfusion_core.selectors.base import Method

TOKENS_OF_A_BLOCK = 16
SHARE = 1 / 3


def mask(order: TokenOrder, config: SparseConfig) -> Tensor:
    """(query_blocks, key_blocks) bool on the device of the order."""
    return within(reach(order, int(config.options["least_width"])), order, config)


def reach(order: TokenOrder, least_width: int) -> Tensor:
    """(query_blocks, key_blocks): the least decay that keeps a pair; infinite if none does.

    Args:
        least_width: of a band, in tokens; 0 means the size of a block.
    """
    sample, blocks = _sample(order)
    grid = max(order.layout.grids, key=lambda each: each.tokens)
    frame, place = sample[:, 0], sample[:, 1] * grid.width + sample[:, 2]
    width = least_width or order.block_size
    rows = []
    for block in range(order.blocks):
        mine = blocks == block
        decays = decay_needed(
            (frame[mine][:, None] - frame).abs(),
            (place[mine][:, None] - place).abs(),
            grid.height * grid.width,
            width,
        )
        rows.append(_third_of_blocks(decays, blocks, order.blocks))
    return torch.stack(rows)


def decay_needed(frames: Tensor, places: Tensor, frame_tokens: int, least_width: int) -> Tensor:
    """The least decay with which a pair of tokens is kept, from its distances; infinite if none is."""
    period = 1 << frame_tokens.bit_length()
    width = period / 2 ** (frames.double() + 0.5).log2().floor().add(1)
    thinned = (width < least_width) & (frames % (least_width / width).floor().clamp(min=1) != 0)
    needed = torch.where(places <= least_width, 0.0, places / width)
    return needed.masked_fill(frames <= 1, 0.0).masked_fill(thinned & (frames > 1), float("inf"))


def _sample(order: TokenOrder) -> tuple[Tensor, Tensor]:
    """(samples, 3) places of some tokens of each block, and (samples,) which block they are of."""
    step = ceil(order.block_size / TOKENS_OF_A_BLOCK)
    at = torch.arange(0, order.tokens, step)
    return token_places(order)[at], at // order.block_size


def _third_of_blocks(decays: Tensor, blocks: Tensor, count: int) -> Tensor:
    """(blocks,): the decay that is enough for a third of the pairs, from (samples, all samples)."""
    by_block = [
        part.flatten() for part in decays.split(blocks.bincount(minlength=count).tolist(), 1)
    ]
    return torch.stack([x.kthvalue(ceil(len(x) * SHARE)).values for x in by_block]).float()


METHOD = Method(
    select=fixed(mask), order="raster", sink=True, static=True, options={"least_width": 0}
)
