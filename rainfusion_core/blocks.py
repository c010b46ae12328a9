"""The one thing a selector hands to a kernel: which key blocks each query block keeps."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeptBlocks:
    """Key blocks kept per query block, as padded index lists.

    Attributes:
        index: (batch, heads, query_blocks, width) int32, ascending; entries past `count` are
            padding and may hold any valid block.
        count: (batch, heads, query_blocks) int32, between 0 and width.
        key_blocks: number of key blocks there are to choose from.
        block_size: tokens per block; the last block may be shorter.
    """

    index: Tensor
    count: Tensor
    key_blocks: int
    block_size: int

    @property
    def kept_pairs(self) -> Tensor:
        """() int64 on the device of `count`: kept (query block, key block) pairs, all heads."""
        return self.count.sum(dtype=torch.int64)

    @property
    def pairs(self) -> int:
        """All (query block, key block) pairs, all heads."""
        return self.count.numel() * self.key_blocks

    @property
    def density(self) -> float:
        """Kept pairs over all pairs. Measured: forced blocks are included. Waits for the device."""
        return self.kept_pairs.item() / self.pairs


def kept_from_mask(mask: Tensor, block_size: int, width: int | None = None) -> KeptBlocks:
    """The blocks that are True in `mask`. Neither sorts nor waits for the device.

    Args:
        mask: (batch, heads, query_blocks, key_blocks) bool.
        width: columns of the index, at least the True ones of the fullest row; None: all.
    """
    key_blocks = mask.shape[-1]
    rank = mask.cumsum(dim=-1, dtype=torch.int32)
    count = rank[..., -1]
    blocks = torch.arange(key_blocks, dtype=torch.int32, device=mask.device)
    # kept blocks go to the front, the others behind them: every place is written exactly once
    place = torch.where(mask, rank - 1, count[..., None] + blocks - rank)
    index = torch.empty_like(rank).scatter_(-1, place.long(), blocks.expand_as(rank))
    return KeptBlocks(index[..., :width].contiguous(), count.contiguous(), key_blocks, block_size)


def kept_mask(kept: KeptBlocks) -> Tensor:
    """(batch, heads, query_blocks, key_blocks) bool: the mask that `kept_from_mask` would take."""
    width = kept.index.shape[-1]
    listed = torch.arange(width, device=kept.index.device) < kept.count[..., None]
    shape = (*kept.count.shape, kept.key_blocks + 1)
    # padding entries of the index go into one column more, which is cut off
    place = torch.where(listed, kept.index.long(), kept.key_blocks)
    mask = torch.zeros(shape, dtype=torch.bool, device=kept.index.device)
    return mask.scatter_(-1, place, True)[..., :-1]


def dense_blocks(
    batch: int, heads: int, blocks: int, *, block_size: int, device: torch.device | None = None
) -> KeptBlocks:
    """Every one of `blocks` query blocks keeps every one of as many key blocks."""
    index = torch.arange(blocks, dtype=torch.int32, device=device)
    count = torch.full((batch, heads, blocks), blocks, dtype=torch.int32, device=device)
    return KeptBlocks(index.repeat(batch, heads, blocks, 1), count, blocks, block_size)
