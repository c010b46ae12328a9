"""The pooled correction: dropped blocks stay in the softmax, each through its mean key and mean value.

What a kernel computed over the kept blocks is merged, by log-sum-exp, with an attention over the
means of the dropped ones. `reference.corrected_attention` is the definition.

Source: Sol-Attn, arXiv 2607.24027. Differs: blocks and selection are those of the method in use.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_mask
from rainfusion_core.kernels.base import Kernel
from rainfusion_core.kernels.places import lying
from rainfusion_core.selection.pooling import block_means, ordered_block_means

# numbers, of logits or of the output, that are held at a time
ROOM = 2**19


def corrected(name: str, kernel: Kernel) -> Callable[..., Tensor]:
    """The kernel called `name`, with the correction: its own if it has one, else a second pass."""
    if name == "reference":
        from rainfusion_core.kernels import reference

        return reference.corrected_attention
    if name == "c-blocks":
        from rainfusion_core.kernels import c_blocks

        return c_blocks.corrected_attention
    merge = _merge_in_triton if name in ("gluon-sm90", "triton-blocks") else _merge_means

    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kept: KeptBlocks,
        *,
        scale: float | None = None,
        key_lengths: Tensor | None = None,
        lse: Tensor | None = None,
        **places: Tensor,
    ) -> Tensor:
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        if lse is None:
            lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        out = kernel(q, k, v, kept, scale=scale, key_lengths=key_lengths, lse=lse, **places)
        with torch.no_grad():
            merge(q, k, v, kept, scale, key_lengths, out, lse, **places)
        return out

    return attention


def pooled_blocks(
    k: Tensor, v: Tensor, places: slice | Tensor, block_size: int
) -> tuple[Tensor, Tensor]:
    """Mean key and mean value of each block of a head, (blocks, head_dim) float32.

    Args:
        k, v: (tokens, head_dim).
        places: where the tokens of the blocks lie, from `lying`, without padding.
    """
    k, v = k[None, None], v[None, None]
    if isinstance(places, slice):
        mean_k, mean_v = (block_means(x[..., places, :], block_size) for x in (k, v))
    else:
        mean_k, mean_v = (ordered_block_means(x, places, block_size) for x in (k, v))
    return mean_k[0, 0], mean_v[0, 0]


def _merge_in_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    scale: float,
    key_lengths: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> None:
    from rainfusion_core.kernels.triton_means import add_means

    k_means, v_means = (block_means(x, kept.block_size, key_lengths) for x in (k, v))
    keys = k.shape[-2]
    add_means(q, k_means, v_means, kept, out, lse, keys=keys, scale=scale, key_lengths=key_lengths)


def _merge_means(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    scale: float,
    key_lengths: Tensor | None,
    out: Tensor,
    lse: Tensor,
    rows: Tensor | None = None,
    key_rows: Tensor | None = None,
) -> None:
    """Add the dropped blocks to `out` and `lse`, some query blocks of a head at a time."""
    shared, size = q.shape[1] // k.shape[1], kept.block_size
    ends = [k.shape[-2]] * len(k) if key_lengths is None else key_lengths.tolist()
    for b, h, places in _places(q, kept):
        if places.start == 0 and h % shared == 0:
            keys = lying(key_rows, b, h // shared, slice(ends[b]))
            at = b, h // shared
            mean_k, mean_v = pooled_blocks(k[at], v[at], keys, size)
            starts = torch.arange(len(mean_k), device=k.device) * size
            sizes = (ends[b] - starts).clamp(max=size).float()
        bias = _dropped(kept, b, h, places, sizes).repeat_interleave(size, dim=0)
        here = lying(rows, b, h, places)
        some, before = q[b, h, here], lse[b, h, here]
        logits = (some.float() @ mean_k.mT).mul_(scale).add_(bias[: len(some)])
        sums = logits.logsumexp(-1)
        total = torch.logaddexp(before, sums)
        # what neither kept nor dropped keys reach stays zero
        share, more = (
            torch.where(total == -torch.inf, 0.0, (x - total).exp()) for x in (before, sums)
        )
        means = logits.sub_(torch.where(sums == -torch.inf, 0.0, sums)[:, None]).exp_() @ mean_v
        kept_part = out[b, h, here].float() * share[:, None]
        out[b, h, here] = torch.addcmul(kept_part, means, more[:, None]).to(out.dtype)
        lse[b, h, here] = total


def _places(q: Tensor, kept: KeptBlocks) -> Iterator[tuple[int, int, slice]]:
    """(batch item, head, queries), whole query blocks that fit into `ROOM` and are few beside all."""
    room, each = min(ROOM, q.numel() // 16), max(kept.key_blocks, q.shape[-1])
    step = max(1, room // (kept.block_size * each)) * kept.block_size
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for first in range(0, q.shape[-2], step):
                yield b, h, slice(first, first + step)


def _dropped(kept: KeptBlocks, b: int, h: int, places: slice, sizes: Tensor) -> Tensor:
    """(query_blocks, means) float32: log of the size of a block, -inf where it is kept."""
    blocks = slice(places.start // kept.block_size, places.stop // kept.block_size)
    rows = replace(kept, index=kept.index[b, h, blocks], count=kept.count[b, h, blocks])
    return torch.where(kept_mask(rows)[:, : len(sizes)], -torch.inf, sizes.log())
