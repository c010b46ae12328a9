"""Softmax weights of a few queries, exactly: what online methods look at before they choose."""

import torch
from torch import Tensor

from rainfusion_core.order import TokenOrder


def token_weights(
    q: Tensor, k: Tensor, tokens: Tensor, *, scale: float, key_lengths: Tensor | None = None
) -> Tensor:
    """(batch, heads, samples, keys) float32: where the queries at these places attend to.

    Args:
        q: (batch, heads, queries, head_dim).
        k: (batch, key_heads, keys, head_dim); key_heads divides heads.
        tokens: (samples,) int64, places of queries.
        key_lengths: (batch,) int; keys from this place on are padding.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = (q.index_select(-2, tokens).float() @ k.float().mT) * scale
    if key_lengths is not None:
        places = torch.arange(k.shape[-2], device=k.device)
        padding = places >= key_lengths.to(k.device)[:, None, None, None]
        logits = logits.masked_fill(padding, float("-inf"))
    return logits.softmax(dim=-1)


def block_sums(x: Tensor, block_size: int) -> Tensor:
    """Sums over blocks of the last axis; the last block may be shorter."""
    short = -x.shape[-1] % block_size
    return torch.nn.functional.pad(x, (0, short)).unflatten(-1, (-1, block_size)).sum(-1)


def sampled_recall(weights: Tensor, tokens: Tensor, order: TokenOrder, mask: Tensor) -> Tensor:
    """(batch, heads) share of the sampled softmax mass that a mask of blocks keeps.

    Args:
        weights: (batch, heads, samples, tokens), from `token_weights`, in the model's order.
        tokens: (samples,) int64, their places in the model's order.
        order: that all heads share; the mask refers to it.
        mask: (query_blocks, key_blocks) bool.
    """
    rows = mask[order.restore[tokens] // order.block_size]
    sums = block_sums(weights.index_select(-1, order.gather), order.block_size)
    return (sums * rows).sum(-1).mean(-1)


def spread_places(tokens: int, samples: int, device: torch.device) -> Tensor:
    """(samples,) int64: places at equal distances, all of them if there are not more."""
    samples = min(samples, tokens)
    return (torch.arange(samples, device=device) * tokens + tokens // 2) // samples
