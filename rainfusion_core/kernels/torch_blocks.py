"""Block-sparse attention in plain torch operations, for every device that torch knows.

On a CPU, threads take query blocks (`kernels.cpu_blocks`). Elsewhere, query blocks that keep equally
many keys run together: their keys are gathered and torch's own dense attention does the rest.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels import cpu_blocks
from rainfusion_core.kernels.places import Places, head_by_head


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    lse: Tensor | None = None,
    rows: Tensor | None = None,
    key_rows: Tensor | None = None,
) -> Tensor:
    """A `Kernel` for every device, that gathers its queries and keys.

    Needs less memory than q, k, v and the output together, on top of those; on a CPU the bound is
    that of `cpu_blocks.attention`, and a dtype that it does not multiply is converted head by head.
    A GPU is waited for once, to read how many keys each row keeps.
    """
    scale, places = q.shape[-1] ** -0.5 if scale is None else scale, (rows, key_rows)
    on_cpu = q.device.type == "cpu"
    with torch.no_grad():
        if on_cpu and k.shape[1] > 1 and q.dtype != cpu_blocks.computed_in(q.dtype):
            settings = {"scale": scale, "key_lengths": key_lengths}
            return head_by_head(attention, q, k, v, kept, lse, places, **settings)
        way = cpu_blocks.attention if on_cpu else attention_by_count
        tokens = kept_tokens(kept, k.shape[-2], key_lengths)
        return way(q, k, v, kept, tokens, scale, lse, places)


def kept_tokens(kept: KeptBlocks, keys: int, key_lengths: Tensor | None) -> Tensor:
    """(batch, heads, query_blocks) int64: keys that each query block attends to.

    Blocks are listed in ascending order, so these keys are the first ones of the listed blocks:
    a ragged last block and padding need no mask.
    """
    ends = kept.count.new_full((kept.count.shape[0],), keys)
    if key_lengths is not None:
        ends = key_lengths.to(ends).clamp(max=keys)
    room = ends[:, None, None, None] - kept.index * kept.block_size
    listed = torch.arange(kept.index.shape[-1], device=room.device) < kept.count[..., None]
    return torch.where(listed, room.clamp_(0, kept.block_size), 0).sum(-1)


def attention_by_count(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    tokens: Tensor,
    scale: float,
    lse: Tensor | None = None,
    places: Places = (None, None),
) -> Tensor:
    """Gather the keys of equally long rows, and attend to them with torch's dense attention.

    Args:
        tokens: (batch, heads, query_blocks) int64, from `kept_tokens`.
        lse: as in `Kernel`; it costs a product of its own, because torch's attention on
            most devices does not tell it.
    """
    heads, queries, head_dim = q.shape[1:]
    if lse is not None:
        lse.fill_(float("-inf"))
    blocks, block_size = kept.count.shape[-1], kept.block_size
    out = torch.zeros_like(q)
    index = kept.index.flatten(0, 2)
    place = torch.arange(block_size, device=q.device)
    # the gathered keys and values of a group stay half as large as k and v
    limit = (q.numel() + k.numel()) // (4 * head_dim)
    for rows, length, width in _equal_rows(tokens, queries, block_size):
        for part in rows.split(max(1, limit // (length + width))):
            b, h = part // (heads * blocks), part // blocks % heads
            listed = index[part, : -(-length // block_size)]
            at_k = (listed[..., None] * block_size + place).flatten(1)[:, :length]
            at_q = (part % blocks * block_size)[:, None] + place[:width]
            here = _lying(at_q, places[0], b, h)
            there = _lying(at_k, places[1], b, h * k.shape[1] // heads)
            q_here, k_here, v_here = q[here], k[there], v[there]
            out[here] = scaled_dot_product_attention(
                q_here[:, None], k_here[:, None], v_here[:, None], scale=scale
            )[:, 0]
            if lse is not None:
                _write_lse(lse, here, q_here.float() * scale, k_here)
    return out


def _lying(at: Tensor, places: Tensor | None, b: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """What picks tokens (rows, tokens) of as many batch items and heads out of a tensor of them all."""
    b, h = b[:, None], h[:, None]
    if places is not None:
        at = places[at] if places.ndim == 1 else places[b, h, at]
    return b, h, at.long()


def _write_lse(lse: Tensor, here: tuple[Tensor, ...], q: Tensor, k: Tensor) -> None:
    """Write the log-sum-exp of equally long rows, as few at a time as need no more room than `k`.

    Args:
        lse: (batch, heads, queries), -inf so far.
        here: where they go, from `_lying`.
        q, k: (rows, queries, head_dim), (rows, keys, head_dim).
    """
    step = max(1, len(q) * q.shape[-1] // q.shape[1])
    for b, h, at, some_q, some_k in zip(*(x.split(step) for x in (*here, q, k)), strict=True):
        lse[b, h, at] = (some_q @ some_k.float().mT).logsumexp(-1)


def _equal_rows(tokens: Tensor, queries: int, block_size: int) -> Iterator[tuple[Tensor, int, int]]:
    """Rows (flat numbers, on the device of `tokens`) with equally many keys and queries, and both."""
    width = (queries - torch.arange(tokens.shape[-1]) * block_size).clamp(max=block_size)
    sizes = tokens.cpu() * (block_size + 1) + width
    kinds, kind = sizes.flatten().unique(return_inverse=True)
    rows = kind.argsort().to(tokens.device).split(kind.bincount().tolist())
    for part, size in zip(rows, kinds.tolist(), strict=True):
        if size > block_size:
            yield part, *divmod(size, block_size + 1)
