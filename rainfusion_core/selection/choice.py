"""Which key blocks are kept: the best of each row or head by a score, a share of the mass, or a fixed mask."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_from_mask
from rainfusion_core.budget import chosen_per_row
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import unavailable_reason
from rainfusion_core.order import TokenOrder

if TYPE_CHECKING:
    from rainfusion_core.selectors.base import Call

LEAST = 1e-30  # of a mass whose logarithm is taken

Score = Callable[[Tensor, Tensor, TokenOrder, "Call"], Tensor]
Select = Callable[[Tensor, Tensor, TokenOrder, "Call"], KeptBlocks]


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without gradients, and in the dtype that is written: autocast would round to half precision."""

    @functools.wraps(function)
    def inside(q: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
            return function(q, *args, **kwargs)

    return inside


def scored(scores: Score) -> Select:
    """The selector that keeps what these scores rank highest."""

    @exact
    def select(q: Tensor, k: Tensor, order: TokenOrder, call: "Call") -> KeptBlocks:
        return keep(scores(q, k, order, call), order, call)

    return select


def fixed(mask: Callable[[TokenOrder, SparseConfig], Tensor]) -> Select:
    """The selector of a mask that depends on order and settings alone; made once for each of them.

    Args:
        mask: (order, config) -> (query_blocks, key_blocks) bool; pinned blocks are added to it.
    """
    mask_of = functools.lru_cache(maxsize=8)(mask)

    @functools.lru_cache(maxsize=2)
    def kept_of(order: TokenOrder, config: SparseConfig, batch: int, heads: int) -> KeptBlocks:
        return keep_mask(mask_of(order, config), order, None, batch, heads)

    def select(q: Tensor, k: Tensor, order: TokenOrder, call: "Call") -> KeptBlocks:
        batch, heads = q.shape[:2]
        if call.key_lengths is None:
            return kept_of(order, call.config, batch, heads)
        return keep_mask(mask_of(order, call.config), order, call.key_lengths, batch, heads)

    return select


def keep(
    scores: Tensor,
    order: TokenOrder,
    call: "Call",
    *,
    forced: Tensor | None = None,
    counts: Tensor | None = None,
    most: int | None = None,
) -> KeptBlocks:
    """The best key blocks of every query block, and the pinned ones. Never waits for the device.

    Args:
        scores: (batch, heads, query_blocks, key_blocks) float32, as `Method.scores` gives them;
            overwritten.
        forced: bool, of a shape that broadcasts to that of the scores: further pairs that are kept
            as pinned ones are, and with the "total" budget paid for as they are.
        counts: int, broadcast likewise: blocks to choose in a row, if rows or heads differ.
        most: blocks that a mass target may choose in a row.
    """
    order = order.on(scores.device)
    config, pinned = call.config, order.pinned
    chosen = chosen_per_row(
        order.blocks, order.pinned_blocks, sparsity=config.sparsity, budget=config.budget
    )
    plain = forced is None and counts is None and config.mass is None
    if plain and _in_triton(scores):
        return keep_on_a_gpu(scores, order, call, chosen)
    padding = padding_blocks(order, call.key_lengths)
    anyway = pinned | pinned[:, None] if forced is None else pinned | pinned[:, None] | forced
    if padding is not None:
        anyway = anyway & ~padding
        scores = scores.masked_fill_(padding, float("-inf"))
    dropped = anyway & (config.budget == "total")
    width = None
    if config.mass is not None:
        mask = _by_mass(scores, dropped, config.mass, most)
    elif counts is not None or (forced is not None and config.budget == "total"):
        counts = _counts(anyway.expand_as(scores), config) if counts is None else counts
        mask = best(scores.masked_fill_(dropped, float("-inf")), counts)
    else:
        top = scores.masked_fill_(dropped, float("-inf")).topk(chosen, dim=-1, sorted=False)
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, top.indices, True)
        width = chosen if plain and not order.pinned_blocks else None
    mask |= anyway
    return kept_from_mask(mask if padding is None else mask & ~padding, order.block_size, width)


def keep_of_head(scores: Tensor, order: TokenOrder, call: "Call") -> KeptBlocks:
    """The best pairs of a head, in whatever rows they are; every row keeps at least its best block.

    Args:
        scores: (batch, heads, query_blocks, key_blocks) float32; overwritten.
    """
    if call.config.mass is not None:
        return keep(scores, order, call)
    order = order.on(scores.device)
    config, pinned, blocks = call.config, order.pinned, order.blocks
    padding = padding_blocks(order, call.key_lengths)
    if padding is not None:
        scores.masked_fill_(padding, float("-inf"))
    anyway, wanted, rows = pinned | pinned[:, None], (1 - config.sparsity) * blocks**2, blocks
    dropped = anyway & (config.budget == "total")
    if config.budget == "total":
        rows -= order.pinned_blocks
        wanted -= blocks**2 - rows**2
    scores = scores.log_softmax(dim=-1).masked_fill_(dropped, float("-inf"))
    scores.scatter_(-1, scores.argmax(dim=-1, keepdim=True), float("inf"))
    scores.masked_fill_(dropped, float("-inf"))
    number = min(blocks**2, max(rows, math.ceil(wanted - 1e-9)))
    top = scores.flatten(-2).topk(number, dim=-1, sorted=False)
    mask = torch.zeros_like(scores, dtype=torch.bool).flatten(-2).scatter_(-1, top.indices, True)
    mask = mask.view_as(scores) | anyway
    return kept_from_mask(mask if padding is None else mask & ~padding, order.block_size)


def keep_mask(
    mask: Tensor, order: TokenOrder, key_lengths: Tensor | None, batch: int, heads: int
) -> KeptBlocks:
    """What is True in a mask, and the pinned blocks.

    Args:
        mask: (query_blocks, key_blocks) or (batch, heads, query_blocks, key_blocks) bool.
    """
    pinned, padding = order.pinned, padding_blocks(order, key_lengths)
    mask = mask.to(pinned.device) | pinned | pinned[:, None]
    mask = mask if padding is None else mask & ~padding
    return kept_from_mask(
        mask.expand(batch, heads, order.blocks, order.blocks).contiguous(), order.block_size
    )


def within(reach: Tensor, order: TokenOrder, config: SparseConfig) -> Tensor:
    """The pairs up to that reach which brings the share of kept pairs nearest to `1 - sparsity`.

    With the "total" budget the pinned blocks count in that share.

    Args:
        reach: (query_blocks, key_blocks) on the CPU, at least 0: how far a pair is out of the way;
            infinite for pairs that are never kept.

    Returns:
        (query_blocks, key_blocks) bool on the device of the order.
    """
    pinned = order.pinned.cpu()
    counted = (
        ~(pinned | pinned[:, None]) if config.budget == "total" else torch.ones_like(reach) > 0
    )
    levels = reach[reach.isfinite()].unique()
    of_level = torch.searchsorted(levels, reach[counted & reach.isfinite()].contiguous())
    pairs = torch.bincount(of_level, minlength=len(levels)).cumsum(0)
    wanted = (1 - config.sparsity) * reach.numel() - float((~counted).sum())
    return (reach <= levels[(pairs - wanted).abs().argmin()]).to(order.pinned.device)


def best(scores: Tensor, counts: Tensor) -> Tensor:
    """Mask of the `counts` greatest scores of each row; counts broadcast to (..., 1)."""
    ranked = scores.argsort(dim=-1, descending=True)
    chosen = torch.arange(scores.shape[-1], device=scores.device) < counts
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, ranked, chosen.expand_as(scores))


def _in_triton(scores: Tensor) -> bool:
    """Whether the GPU is one for Triton, and its kernel can hold a row."""
    if scores.device.type != "cuda" or scores.shape[-1] > 16_384:
        return False
    return unavailable_reason("triton-blocks", scores.device, scores.dtype, head_dim=64) is None


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
    """(batch, 1, 1, key_blocks) bool, True where a key block is all padding; None: none is."""
    if key_lengths is None:
        return None
    starts = torch.arange(order.blocks, device=order.pinned.device) * order.block_size
    return (starts >= key_lengths.to(starts.device)[:, None])[:, None, None]


def _counts(anyway: Tensor, config: SparseConfig) -> Tensor:
    """(batch, heads, 1, 1) int: blocks that a row with free ones may choose, at least one."""
    free_rows = (~anyway).any(dim=-1).sum(dim=-1)
    pairs = (1 - config.sparsity) * anyway.shape[-1] ** 2 - anyway.sum(dim=(-2, -1))
    return (pairs / free_rows.clamp(min=1)).add(0.5).floor().clamp(min=1)[..., None, None]


def _by_mass(scores: Tensor, dropped: Tensor, target: float, most: int | None) -> Tensor:
    """The fewest blocks of each row that reach `target`; what is dropped is kept anyway, so it counts."""
    masses = scores.softmax(dim=-1)
    free, ranked = masses.masked_fill(dropped, 0.0).sort(dim=-1, descending=True)
    before = masses.masked_fill(~dropped, 0.0).sum(-1, keepdim=True) + free.cumsum(-1) - free
    # a block without any mass never helps
    chosen = (before < target) & (free > 0)
    if most is not None:
        chosen[..., most:] = False
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, ranked, chosen)
