"""The pooled correction in Triton: the means of dropped blocks join a softmax that a kernel has finished.

`reference.corrected_attention` is the definition. The log-sum-exp of the kept keys and their mean
value are where the running softmax goes on, so queries and output are read once more and no logits
are stored.
"""

from math import e, log2
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels import triton_blocks
from rainfusion_core.kernels.row_plan import rows_stride


@triton.jit
def _mark(index_ptr, count_ptr, marks_ptr, columns, width, PADDED_WIDTH: tl.constexpr):
    """1 in the column of every listed block."""
    row = tl.program_id(0).to(tl.int64)
    o_index = tl.arange(0, PADDED_WIDTH)
    m_index = o_index < tl.load(count_ptr + row)
    block = tl.load(index_ptr + row * width + o_index, mask=m_index, other=0)
    tl.store(marks_ptr + row * columns + block, tl.full([PADDED_WIDTH], 1, tl.uint8), mask=m_index)


@triton.jit
def _add_means(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, rows_ptr, kept_ptr, lengths_ptr,
    q_stride_b, q_stride_h, q_stride_t, out_stride_b, out_stride_h, out_stride_t, rows_stride,
    queries, keys, means, heads, shared, scale,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, GATHER: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    PARTS: tl.constexpr = BLOCK // ROWS
    LOG2E: tl.constexpr = 1.4426950408889634
    i_head = tl.program_id(1).to(tl.int64)  # [batch, heads] flattened
    i_batch = i_head // heads
    i_block = tl.program_id(0) // PARTS
    row = i_head * (tl.num_programs(0) // PARTS) + i_block
    o_dim = tl.arange(0, PADDED_DIM)[None, :]
    o_q = i_block * BLOCK + (tl.program_id(0) % PARTS) * ROWS + tl.arange(0, ROWS)
    m_q = o_q < queries
    place = o_q.to(tl.int64)
    if GATHER:
        place = tl.load(rows_ptr + i_head * rows_stride + o_q, mask=m_q, other=0)
    m_tile = m_q[:, None] & (o_dim < HEAD_DIM)
    q_ptr += i_batch * q_stride_b + i_head % heads * q_stride_h
    q = tl.load(q_ptr + place[:, None] * q_stride_t + o_dim, mask=m_tile, other=0.0)
    out_ptr += i_batch * out_stride_b + i_head % heads * out_stride_h
    out_ptrs = out_ptr + place[:, None] * out_stride_t + o_dim
    lse_ptrs = lse_ptr + i_head * queries + place
    end = keys
    if PADDING:
        end = tl.minimum(keys, tl.load(lengths_ptr + i_batch).to(tl.int32))
    kept_ptr += row * means
    k_ptr += i_head // shared * means * HEAD_DIM
    v_ptr += i_head // shared * means * HEAD_DIM

    # kept keys count as one term: their sum over exp(lse); finite where there are none
    lse = tl.load(lse_ptrs, mask=m_q, other=float("-inf"))
    peak = tl.maximum(lse * LOG2E, -1.0e38)
    total = tl.where(lse == float("-inf"), 0.0, 1.0)
    acc = tl.load(out_ptrs, mask=m_tile, other=0.0).to(tl.float32)
    for first in tl.range(0, means, TILE, num_stages=STAGES):
        o_k = first + tl.arange(0, TILE)
        size = tl.minimum(end - o_k * BLOCK, BLOCK)
        dropped = (tl.load(kept_ptr + o_k, mask=o_k < means, other=1) == 0) & (size > 0)
        m_k = (o_k < means)[:, None] & (o_dim < HEAD_DIM)
        k = tl.load(k_ptr + o_k[:, None] * HEAD_DIM + o_dim, mask=m_k, other=0.0)
        v = tl.load(v_ptr + o_k[:, None] * HEAD_DIM + o_dim, mask=m_k, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        logits += tl.math.log2(tl.where(dropped, size, 1).to(tl.float32))[None, :]
        logits = tl.where(dropped[None, :], logits, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, 1))
        weights = tl.math.exp2(logits - new_peak[:, None])
        shrink = tl.math.exp2(peak - new_peak)
        total = total * shrink + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        peak = new_peak
    divisor = tl.where(total > 0, total, 1.0)
    out = acc / divisor[:, None]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=m_tile)
    lse = tl.where(total > 0, (peak + tl.math.log2(divisor)) / LOG2E, float("-inf"))
    tl.store(lse_ptrs, lse, mask=m_q)


def add_means(
    q: Tensor,
    k_means: Tensor,
    v_means: Tensor,
    kept: KeptBlocks,
    out: Tensor,
    lse: Tensor,
    *,
    keys: int,
    scale: float,
    key_lengths: Tensor | None = None,
    rows: Tensor | None = None,
) -> None:
    """Add the dropped blocks to `out` and `lse`, in place.

    Args:
        q: (batch, heads, queries, head_dim).
        k_means, v_means: (batch, kv_heads, key_blocks, head_dim), of the tokens that are no padding.
        out, lse: what a kernel made of the kept blocks.
        keys: tokens, padding included.
        rows: as in `triton_blocks.attention`.
    """
    batch, heads, queries, head_dim = q.shape
    q = q if q.stride(-1) == 1 else q.contiguous()
    blocks = kept.count.shape[-1]
    architecture = triton_blocks.architecture_of(q.device)
    options = launch_options(head_dim, kept.block_size, q.dtype, architecture)
    _add_means[(blocks * (kept.block_size // options["ROWS"]), batch * heads)](
        q,
        k_means.to(q.dtype).contiguous(),
        v_means.to(q.dtype).contiguous(),
        out,
        lse,
        kept.count if rows is None else rows,
        _marks(kept),
        kept.count if key_lengths is None else key_lengths.to(q.device),
        *q.stride()[:3],
        *out.stride()[:3],
        rows_stride(rows),
        queries,
        keys,
        kept.key_blocks,
        heads,
        heads // k_means.shape[1],
        scale * log2(e),
        **options,
        GATHER=rows is not None,
        PADDING=key_lengths is not None,
    )


def _marks(kept: KeptBlocks) -> Tensor:
    """(batch, heads, query_blocks, key_blocks) uint8, 1 where a block is kept."""
    marks = torch.zeros(
        (*kept.count.shape, kept.key_blocks), dtype=torch.uint8, device=kept.count.device
    )
    width = kept.index.shape[-1]
    _mark[(kept.count.numel(),)](
        kept.index.contiguous(),
        kept.count.contiguous(),
        marks,
        kept.key_blocks,
        width,
        PADDED_WIDTH=triton.next_power_of_2(width),
    )
    return marks


def launch_options(
    head_dim: int, block_size: int, dtype: torch.dtype, architecture: str
) -> dict[str, Any]:
    """Compile-time sizes and launch settings."""
    exact = dtype == torch.float32
    return {
        "HEAD_DIM": head_dim,
        "PADDED_DIM": max(16, triton.next_power_of_2(head_dim)),
        "BLOCK": block_size,
        "ROWS": min(block_size, 32 if exact or head_dim > 128 else 128),
        "TILE": 32 if exact or head_dim > 128 else 64,
        "PRECISION": "ieee" if architecture.startswith("gfx") else "tf32x3",
        "num_warps": 4 if exact or block_size < 128 else 8,
        "STAGES": 1 if exact or architecture.startswith("gfx") else 2,
    }
