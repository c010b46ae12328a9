"""Block-sparse attention as plain masked softmax in float32: the definition of what kernels compute."""

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_mask


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    lse: Tensor | None = None,
) -> Tensor:
    """Exact softmax over the kept blocks: a dropped block is absent from the denominator too.

    What every `kernels.base.Kernel` computes; the arguments are described there.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    mask = token_mask(kept, q.shape[-2], k.shape[-2])
    if key_lengths is not None:
        valid = torch.arange(k.shape[-2], device=k.device) < key_lengths.to(k.device)[:, None]
        mask = mask & valid[:, None, None]
    shared = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
    logits = (q.float() @ k.float().mT * scale).masked_fill(~mask, float("-inf"))
    if lse is not None:
        lse.copy_(logits.logsumexp(dim=-1))
    weights = logits.softmax(dim=-1)
    # a row without a key is 0 / 0 there
    return (weights.masked_fill(~mask, 0.0) @ v.float()).to(q.dtype)


def corrected_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    lse: Tensor | None = None,
) -> Tensor:
    """`attention`, but a dropped block stays in both sums: all its keys are taken for their mean.

    A dropped block of n keys adds n exp(logit of the mean key) to the denominator, and the sum of
    its values times exp(logit of the mean key) to the numerator. Padding is in neither.

    Source: Sol-Attn, arXiv 2607.24027. Differs: blocks and selection are those of `kept`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    shared, keys, size = q.shape[1] // k.shape[1], k.shape[-2], kept.block_size
    lengths = q.new_full((len(q),), keys) if key_lengths is None else key_lengths.to(q.device)
    real = (torch.arange(keys, device=q.device) < lengths[:, None])[:, None, :, None]
    k, v = (torch.where(real, x.float(), 0.0).repeat_interleave(shared, dim=1) for x in (k, v))
    means = [
        (part.sum(-2, keepdim=True) / here.sum(-2, keepdim=True).clamp(min=1)).expand_as(part)
        for part, here in zip(k.split(size, -2), real.split(size, -2), strict=True)
    ]
    dropped = q.float() @ torch.cat(means, -2).mT
    logits = torch.where(token_mask(kept, q.shape[-2], keys), q.float() @ k.mT, dropped) * scale
    logits = logits.masked_fill(~real.mT, float("-inf"))
    if lse is not None:
        lse.copy_(logits.logsumexp(dim=-1))
    weights = logits.softmax(dim=-1).masked_fill(~real.mT, 0.0)
    return (weights @ v).to(q.dtype)


def token_mask(kept: KeptBlocks, queries: int, keys: int) -> Tensor:
    """(batch, heads, queries, keys) bool, True where the pair is attended."""
    mask = kept_mask(kept).repeat_interleave(kept.block_size, dim=-2)[..., :queries, :]
    return mask.repeat_interleave(kept.block_size, dim=-1)[..., :keys]
