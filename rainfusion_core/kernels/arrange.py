"""Tokens put in the order of the blocks and the mean of every block, in one pass over memory, in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainfusion_core.kernels.row_plan import rows_stride


@triton.jit
def _arrange(
    x_ptr, rows_ptr, out_ptr, means_ptr, lengths_ptr, stride_b, stride_h, stride_t, rows_stride,
    tokens, heads,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK: tl.constexpr,
    COPY: tl.constexpr, MEAN: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    # heads of a token are neighbours in the memory of most models, so they run at the same time
    i_head = tl.program_id(0).to(tl.int64)  # [batch, heads] flattened
    i_block = tl.program_id(1)
    i_batch = i_head // heads
    o_dim = tl.arange(0, PADDED_DIM)
    m_dim = o_dim < HEAD_DIM
    o_out = i_block * BLOCK + tl.arange(0, BLOCK)
    m_out = o_out < tokens
    place = tl.load(rows_ptr + i_head * rows_stride + o_out, mask=m_out, other=0)
    x_ptr += i_batch * stride_b + i_head % heads * stride_h
    mask = m_out[:, None] & m_dim[None, :]
    x = tl.load(x_ptr + place[:, None] * stride_t + o_dim[None, :], mask=mask, other=0.0)
    if COPY:
        p_out = (i_head * tokens + o_out)[:, None] * HEAD_DIM + o_dim[None, :]
        tl.store(out_ptr + p_out, x, mask=mask)
    if MEAN:
        end = tokens
        if PADDING:
            end = tl.minimum(tokens, tl.load(lengths_ptr + i_batch).to(tl.int32))
        # where, not times zero: padding may hold NaN
        total = tl.sum(tl.where(o_out[:, None] < end, x.to(tl.float32), 0.0), 0)
        real = tl.minimum(tl.maximum(end - i_block * BLOCK, 1), BLOCK)
        p_means = (i_head * tl.num_programs(1) + i_block) * HEAD_DIM + o_dim
        tl.store(means_ptr + p_means, total / real, mask=m_dim)


def arranged(x: Tensor, gather: Tensor) -> Tensor:
    """(batch, heads, tokens, head_dim), contiguous: token i is token `gather[i]` of `x`.

    Args:
        x: (batch, heads, tokens, head_dim), in any strides.
        gather: (tokens,) or (batch, heads, tokens) int64.
    """
    out = x.new_empty(x.shape)
    _launch(x, gather, 128, out=out)
    return out


def arranged_means(
    x: Tensor, gather: Tensor, block_size: int, lengths: Tensor | None = None
) -> Tensor:
    """`pooling.block_means` of `arranged`, which is not made: (batch, heads, blocks, head_dim)."""
    means = _space(x, block_size)
    _launch(x, gather, block_size, means=means, lengths=lengths)
    return means


def arranged_with_means(
    x: Tensor, gather: Tensor, block_size: int, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`arranged` and the means of its blocks: `x` is read once."""
    out, means = x.new_empty(x.shape), _space(x, block_size)
    _launch(x, gather, block_size, out=out, means=means, lengths=lengths)
    return out, means


def _space(x: Tensor, block_size: int) -> Tensor:
    batch, heads, tokens, head_dim = x.shape
    return x.new_empty((batch, heads, -(-tokens // block_size), head_dim), dtype=torch.float32)


def _launch(
    x: Tensor,
    gather: Tensor,
    block_size: int,
    *,
    out: Tensor | None = None,
    means: Tensor | None = None,
    lengths: Tensor | None = None,
) -> None:
    batch, heads, tokens, head_dim = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    _arrange[(batch * heads, -(-tokens // block_size))](
        x,
        gather,
        x if out is None else out,
        x if means is None else means,
        x if lengths is None else lengths.to(x.device),
        *x.stride()[:3],
        rows_stride(gather),
        tokens,
        heads,
        HEAD_DIM=head_dim,
        PADDED_DIM=triton.next_power_of_2(head_dim),
        BLOCK=block_size,
        COPY=out is not None,
        MEAN=means is not None,
        PADDING=lengths is not None,
        num_warps=8,
    )
