"""How well kept blocks cover attention: exact softmax mass of blocks, recall, rank correlation, output error."""

import torch
from torch import Tensor


@torch.no_grad()
def block_mass(
    q: Tensor,
    k: Tensor,
    block_size: int,
    *,
    scale: float,
    key_lengths: Tensor | None = None,
) -> Tensor:
    """What share of a query block's attention goes to each key block, exactly; every row sums to 1.

    Works through one head's query block at a time, so no matrix of all tokens is ever there.

    Args:
        q: (batch, heads, tokens, head_dim), in the order in which blocks are cut.
        k: (batch, key_heads, tokens, head_dim); key_heads divides heads.
        key_lengths: (batch,) int; keys from this place on are padding.

    Returns:
        (batch, heads, query_blocks, key_blocks) float32, means over the queries of each block.
    """
    batch, heads, tokens, _ = q.shape
    share = heads // k.shape[1]
    blocks = -(-tokens // block_size)
    mass = torch.empty(batch, heads, blocks, blocks, dtype=torch.float32, device=q.device)
    places = torch.arange(k.shape[-2], device=k.device)
    for item in range(batch):
        padding = None if key_lengths is None else places >= key_lengths[item]
        for head in range(heads):
            keys = k[item, head // share].float().mT
            for number, rows in enumerate(q[item, head].float().split(block_size)):
                logits = (rows @ keys).mul_(scale)
                if padding is not None:
                    logits.masked_fill_(padding, float("-inf"))
                weights = logits.softmax(-1).mean(0)
                mass[item, head, number] = _block_sums(weights, block_size, blocks)
    return mass


def _block_sums(x: Tensor, block_size: int, blocks: int) -> Tensor:
    """Sums over blocks of the last axis."""
    short = blocks * block_size - x.shape[-1]
    return torch.nn.functional.pad(x, (0, short)).unflatten(-1, (blocks, block_size)).sum(-1)


def recall(mass: Tensor, mask: Tensor, tokens: int, block_size: int) -> Tensor:
    """(batch, heads) share of all attention that kept pairs hold, in [0, 1].

    Args:
        mass: from `block_mass`.
        mask: (batch, heads, query_blocks, key_blocks) bool, kept pairs.
        tokens: of the sequence; the last query block may be shorter, and then weighs less.
    """
    return _weighted((mass * mask).sum(-1), tokens, block_size)


def best_recall(mass: Tensor, mask: Tensor, tokens: int, block_size: int) -> Tensor:
    """(batch, heads) highest `recall` that as many kept pairs in every row can have."""
    reached = mass.sort(-1, descending=True).values.cumsum(-1)
    reached = torch.nn.functional.pad(reached, (1, 0))
    return _weighted(reached.gather(-1, mask.sum(-1, keepdim=True))[..., 0], tokens, block_size)


def _weighted(rows: Tensor, tokens: int, block_size: int) -> Tensor:
    blocks = rows.shape[-1]
    weights = torch.full((blocks,), float(block_size), device=rows.device)
    weights[-1] = tokens - (blocks - 1) * block_size
    return rows @ weights / tokens


def rank_correlation(scores: Tensor, mass: Tensor) -> Tensor:
    """(batch, heads) mean over rows of Spearman's correlation of predicted scores and true mass.

    Equal values share their mean rank. Rows without variation of either are left out; a head
    without any other row is NaN.

    Args:
        scores, mass: (batch, heads, query_blocks, key_blocks).
    """
    first, second = (_ranks(x.float()) for x in (scores, mass))
    first, second = (x - x.mean(-1, keepdim=True) for x in (first, second))
    norms = (first.square().sum(-1) * second.square().sum(-1)).sqrt()
    rows = (first * second).sum(-1) / norms
    return torch.where(norms > 0, rows, torch.nan).nanmean(-1)


def _ranks(x: Tensor) -> Tensor:
    """Rank of every value in its row, from 0; equal values share their mean rank."""
    ordered = x.sort(-1).values.contiguous()
    below = torch.searchsorted(ordered, x.contiguous())
    not_above = torch.searchsorted(ordered, x.contiguous(), right=True)
    return (below + not_above - 1) / 2


def relative_error(out: Tensor, dense: Tensor) -> float:
    """Euclidean norm of the difference of two outputs, over that of the dense one."""
    a, b = out.float(), dense.float()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))
