"""Attention for training on a CPU: plain bf16 matrix products with a backward pass of their own."""

from collections.abc import Iterator

import torch
from torch import Tensor


class MatmulAttention(torch.autograd.Function):
    """Attention as plain bf16 matrix products, a head at a time; (batch * heads, tokens, head_dim).

    In training on a CPU without AMX some times faster than torch's flash kernel; with AMX `tile_attention` takes most
    of it. Weights are computed again for the backward pass.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for part in MatmulAttention.parts(q):
            weights = ((q[part] * q.shape[-1] ** -0.5) @ k[part].mT).softmax(-1)
            out[part] = weights @ v[part]
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out = ctx.saved_tensors
        scale, d_out = q.shape[-1] ** -0.5, d_out.contiguous()
        d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
        shift = (d_out * out).sum(-1, keepdim=True, dtype=torch.float32).to(q.dtype)
        for part in MatmulAttention.parts(q):
            weights = ((q[part] * scale) @ k[part].mT).softmax(-1)
            d_v[part] = weights.mT @ d_out[part]
            d_logits = (d_out[part] @ v[part].mT).sub_(shift[part]).mul_(weights)
            d_q[part] = (d_logits @ k[part]) * scale
            d_k[part] = (d_logits.mT @ q[part]) * scale
        return d_q, d_k, d_v

    @staticmethod
    def parts(q: Tensor) -> Iterator[slice]:
        """As many heads at a time as keep a part's weights in 8 MiB, at least one."""
        size = max(1, 2**22 // q.shape[1] ** 2)
        return (slice(start, start + size) for start in range(0, len(q), size))


@torch.compiler.disable
def matmul_attention(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """Stands in for diffusers' dispatch; (batch, tokens, heads, head_dim)."""
    batch, tokens, heads, width = query.shape
    q, k, v = (x.transpose(1, 2).reshape(batch * heads, -1, width) for x in (query, key, value))
    out = MatmulAttention.apply(*(x.to(torch.bfloat16) for x in (q, k, v)))
    return out.view(batch, heads, tokens, width).transpose(1, 2)
