"""Which key blocks are kept, given a score for every pair of blocks: a fixed share, or a share of the mass."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_from_mask
from rainfusion_core.budget import chosen_per_row
from rainfusion_core.order import TokenOrder

if TYPE_CHECKING:
    from rainfusion_core.selectors.base import Call


def keep(scores: Tensor, order: TokenOrder, call: "Call") -> KeptBlocks:
    """The best key blocks of every query block, and the pinned ones. Never waits for the device.

    Args:
        scores: (batch, heads, query_blocks, key_blocks) float32, as `Method.scores` gives them;
            overwritten.
    """
    order = order.on(scores.device)
    config, pinned = call.config, order.pinned
    padding = padding_blocks(order, call.key_lengths)
    dropped = torch.zeros_like(pinned) if config.budget == "paper" else pinned
    if padding is not None:
        dropped = dropped | padding
    width = None
    if config.mass is not None:
        mask = _by_mass(scores, dropped, padding, config.mass)
    else:
        chosen = chosen_per_row(
            order.blocks, order.pinned_blocks, sparsity=config.sparsity, budget=config.budget
        )
        if _on_a_gpu(scores):
            return keep_on_a_gpu(scores, order, call, chosen)
        best = scores.masked_fill_(dropped, float("-inf")).topk(chosen, dim=-1, sorted=False)
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best.indices, True)
        width = order.blocks if order.pinned_blocks else chosen
    mask |= pinned | pinned[:, None]
    if padding is not None:
        mask &= ~padding
    return kept_from_mask(mask, order.block_size, width)


def _on_a_gpu(scores: Tensor) -> bool:
    return scores.device.type == "cuda" and find_spec("triton") is not None


def keep_on_a_gpu(scores: Tensor, order: TokenOrder, call: "Call", chosen: int) -> KeptBlocks:
    """What `keep` does for a fixed share, in one pass; of equal scores the first are kept."""
    from rainfusion_core.kernels.best_blocks import best_blocks

    return best_blocks(
        scores.contiguous(),
        order.pinned,
        chosen,
        block_size=order.block_size,
        drop_pinned=call.config.budget == "total",
        width=order.blocks if order.pinned_blocks else chosen,
        key_lengths=call.key_lengths,
    )


def padding_blocks(order: TokenOrder, key_lengths: Tensor | None) -> Tensor | None:
    """(batch, 1, 1, key_blocks) bool, True for key blocks that are all padding; None: there are none."""
    if key_lengths is None:
        return None
    starts = torch.arange(order.blocks, device=order.pinned.device) * order.block_size
    return (starts >= key_lengths.to(starts.device)[:, None])[:, None, None]


def _by_mass(scores: Tensor, dropped: Tensor, padding: Tensor | None, target: float) -> Tensor:
    """The fewest blocks of each row that reach `target`, with what is kept anyway counted first."""
    if padding is not None:
        scores = scores.masked_fill(padding, float("-inf"))
    masses = scores.softmax(dim=-1)
    free, best = masses.masked_fill(dropped, 0.0).sort(dim=-1, descending=True)
    # before: the mass without this block and all smaller ones, what is dropped here is kept anyway
    before = masses.masked_fill(~dropped, 0.0).sum(-1, keepdim=True) + free.cumsum(-1) - free
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, before < target)
