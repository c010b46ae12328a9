"""Block-sparse attention forward pass in Gluon, for NVIDIA Hopper (compute capability 9.0) alone.

A program computes one query block. One warp copies tiles of keys and values into shared memory
(TMA); two groups of four warps take 64 queries each (wgmma). They issue their products in turn,
so that the softmax of one runs under the products of the other, and in each the product with the
values of a tile is in flight together with the product with the keys of the next
(FlashAttention-3, arXiv 2407.08608).

Blocks are listed in ascending order and walked from the end: only the first tile can be cut.
"""

from math import e, log2
from typing import Any

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels.row_plan import launch_order, row_tokens, rows_stride

BLOCK_SIZE = 128

BLOCK = gl.constexpr(BLOCK_SIZE)
HALF = gl.constexpr(BLOCK_SIZE // 2)
# the names of Triton 3.6 were changed after it
NEW_NAMES = gl.constexpr(hasattr(tma, "async_load"))
load_tile = tma.async_load if NEW_NAMES.value else tma.async_copy_global_to_shared


@gluon.jit
def _matrix(buffer, ROWS: gl.constexpr, COLUMNS: gl.constexpr):
    """The [1, ROWS, COLUMNS] buffer that a copy fills, as the operand that wgmma takes."""
    LAYOUT: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    if NEW_NAMES:
        return buffer.reinterpret(buffer.dtype, [ROWS, COLUMNS], LAYOUT)
    else:
        return buffer._reinterpret(buffer.dtype, [ROWS, COLUMNS], LAYOUT)


@gluon.jit
def _copy_tiles(
    k_desc, v_desc, k_tiles, v_tiles, k_full, v_full, k_empty, v_empty,
    index_ptr, blocks, i_kv, DIM: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The copying warp: tile after tile into the ring, as soon as both consumers left its place."""
    last = index_ptr + blocks - 1
    block = gl.load(last, mask=blocks > 0, other=0)
    for i in range(gl.maximum(blocks, 1)):
        # fetched before this tile's barriers are waited for
        next_block = gl.load(last - i - 1, mask=i + 1 < blocks, other=0)
        stage = i % STAGES
        phase = (i // STAGES) & 1
        mbarrier.wait(k_empty.index(stage), phase ^ 1)
        mbarrier.expect(k_full.index(stage), BLOCK * DIM * 2)
        load_tile(k_desc, [i_kv, block * BLOCK, 0], k_full.index(stage), k_tiles.index(stage))
        mbarrier.wait(v_empty.index(stage), phase ^ 1)
        mbarrier.expect(v_full.index(stage), BLOCK * DIM * 2)
        load_tile(v_desc, [i_kv, block * BLOCK, 0], v_full.index(stage), v_tiles.index(stage))
        block = next_block


@gluon.jit
def _places(rows_ptr, present, LAYOUT: gl.constexpr, GATHER: gl.constexpr):
    """Where 64 queries lie in q and out, and which of them exist."""
    o_q = gl.arange(0, HALF, LAYOUT)
    if GATHER:
        return gl.load(rows_ptr + o_q, mask=o_q < present, other=0), o_q < present
    else:
        return o_q.to(gl.int64), o_q < present


@gluon.jit
def _attend(
    q_ptr, out_ptr, lse_ptr, rows_ptr, q_tiles, k_tiles, v_tiles,
    k_full, v_full, k_empty, v_empty, turn, blocks, rest, present, q_stride, out_stride, scale,
    WHO: gl.constexpr, HEAD_DIM: gl.constexpr, DIM: gl.constexpr, STAGES: gl.constexpr,
    GATHER: gl.constexpr, LSE: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    """A consumer: 64 queries against every tile."""
    dtype: gl.constexpr = k_tiles.dtype
    LOGITS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK, 16])
    OUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DIM, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=OUT, k_width=2)
    ROW: gl.constexpr = gl.SliceLayout(1, LOGITS)
    OUT_ROW: gl.constexpr = gl.SliceLayout(1, OUT)
    # 16 bytes at a time in each thread; other rows when storing than when loading, or else the
    # compiler would carry their addresses through the loop, where registers are short
    LOADED: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])
    STORED: gl.constexpr = gl.BlockedLayout([4, 8], [256 // DIM, DIM // 8], [4, 1], [1, 0])

    q = _matrix(q_tiles.index(WHO), HALF, DIM)
    o_dim = gl.arange(0, DIM, gl.SliceLayout(0, LOADED))[None, :]
    place, m_q = _places(rows_ptr, present, gl.SliceLayout(1, LOADED), GATHER)
    m_tile = m_q[:, None] & (o_dim < HEAD_DIM)
    q.store(gl.load(q_ptr + place[:, None] * q_stride + o_dim, mask=m_tile, other=0.0))
    fence_async_shared()

    tiles = gl.maximum(blocks, 1)
    nothing = gl.zeros([HALF, BLOCK], gl.float32, LOGITS)
    acc = gl.zeros([HALF, DIM], gl.float32, OUT)
    if TURNS and WHO == 1:
        mbarrier.arrive(turn.index(0), count=1)

    # the only tile that can be cut
    mbarrier.wait(k_full.index(0), 0)
    if TURNS:
        mbarrier.wait(turn.index(WHO), 0)
    k = _matrix(k_tiles.index(0), BLOCK, DIM)
    logits = warpgroup_mma(q, k.permute((1, 0)), nothing, use_acc=False, is_async=True)
    if TURNS:
        mbarrier.arrive(turn.index(1 - WHO), count=1)
    logits = warpgroup_mma_wait(0, deps=(logits,))
    mbarrier.arrive(k_empty.index(0), count=1)
    o_k = gl.arange(0, BLOCK, gl.SliceLayout(0, LOGITS))[None, :]
    logits = gl.where(o_k < rest, logits, -float("inf"))
    # finite: a row without keys must give zeros, and inf - inf is NaN
    peak = gl.maximum(gl.max(logits, 1) * scale, -1.0e38)
    weights = gl.exp2(logits * scale - peak[:, None])
    total = gl.sum(weights, 1)
    mbarrier.wait(k_full.index(1 % STAGES), 1 // STAGES & 1, pred=tiles > 1)

    for i in range(1, tiles):
        stage = i % STAGES
        before = (i - 1) % STAGES
        k = _matrix(k_tiles.index(stage), BLOCK, DIM)
        if TURNS:
            mbarrier.wait(turn.index(WHO), i & 1)
        logits = warpgroup_mma(q, k.permute((1, 0)), nothing, use_acc=False, is_async=True)
        # the values of the tile before
        weights = gl.convert_layout(weights.to(dtype), WEIGHTS)
        mbarrier.wait(v_full.index(before), ((i - 1) // STAGES) & 1)
        v = _matrix(v_tiles.index(before), BLOCK, DIM)
        acc = warpgroup_mma(weights, v, acc, is_async=True)
        if TURNS:
            mbarrier.arrive(turn.index(1 - WHO), count=1)
        logits = warpgroup_mma_wait(1, deps=(logits,))
        mbarrier.arrive(k_empty.index(stage), count=1)
        new_peak = gl.maximum(peak, gl.max(logits, 1) * scale)
        weights = gl.exp2(logits * scale - new_peak[:, None])
        shrink = gl.exp2(peak - new_peak)
        total = total * shrink + gl.sum(weights, 1)
        peak = new_peak
        # waited for here and not above: without it ptxas moves the next wait above the exponentials
        mbarrier.wait(k_full.index((i + 1) % STAGES), ((i + 1) // STAGES) & 1, pred=i + 1 < tiles)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(v_empty.index(before), count=1)
        acc = acc * gl.convert_layout(shrink, OUT_ROW)[:, None]

    stage = (tiles - 1) % STAGES
    weights = gl.convert_layout(weights.to(dtype), WEIGHTS)
    mbarrier.wait(v_full.index(stage), ((tiles - 1) // STAGES) & 1)
    acc = warpgroup_mma(weights, _matrix(v_tiles.index(stage), BLOCK, DIM), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    acc = acc * gl.convert_layout(1.0 / total, OUT_ROW)[:, None]
    # the queries are not needed any more: their place turns the output into rows of memory
    q.store(gl.where(blocks > 0, acc, 0.0).to(dtype))
    place, m_q = _places(rows_ptr, present, gl.SliceLayout(1, STORED), GATHER)
    o_dim = gl.arange(0, DIM, gl.SliceLayout(0, STORED))[None, :]
    m_tile = m_q[:, None] & (o_dim < HEAD_DIM)
    gl.store(out_ptr + place[:, None] * out_stride + o_dim, q.load(STORED), mask=m_tile)
    if LSE:
        place, m_q = _places(rows_ptr, present, ROW, GATHER)
        # peak and total are of base 2
        lse = (peak + gl.log2(total)) * 0.6931471805599453
        gl.store(lse_ptr + place, gl.where(blocks > 0, lse, -float("inf")), mask=m_q)


@gluon.jit
def _forward(
    q_ptr, k_desc, v_desc, out_ptr, lse_ptr, rows_ptr, index_ptr, tokens_ptr, launch_ptr,
    q_stride_b, q_stride_h, q_stride_t, out_stride_b, out_stride_h, out_stride_t,
    rows_stride, queries, width, heads, shared, scale,
    HEAD_DIM: gl.constexpr, DIM: gl.constexpr, STAGES: gl.constexpr,
    GATHER: gl.constexpr, LSE: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    head = gl.program_id(1)  # [batch, heads] flattened
    i_head = head.to(gl.int64)
    first_row = i_head * gl.num_programs(0)
    i_block = gl.load(launch_ptr + first_row + gl.program_id(0))
    row = first_row + i_block
    tokens = gl.load(tokens_ptr + row)
    blocks = (tokens + BLOCK - 1) // BLOCK
    rest = tokens - (blocks - 1) * BLOCK
    i_batch = i_head // heads
    q_ptr += i_batch * q_stride_b + i_head % heads * q_stride_h
    out_ptr += i_batch * out_stride_b + i_head % heads * out_stride_h
    lse_ptr += i_head * queries
    first = i_block * BLOCK
    if GATHER:
        rows_ptr += i_head * rows_stride + first
    else:
        q_ptr += first.to(gl.int64) * q_stride_t
        out_ptr += first.to(gl.int64) * out_stride_t
        lse_ptr += first
    # what the second consumer adds to them
    rows_2, q_2, out_2, lse_2 = rows_ptr, q_ptr, out_ptr, lse_ptr
    if GATHER:
        rows_2 += HALF
    else:
        q_2 += HALF * q_stride_t
        out_2 += HALF * out_stride_t
        lse_2 += HALF

    dtype: gl.constexpr = k_desc.dtype
    BARRIERS: gl.constexpr = mbarrier.MBarrierLayout()
    q_tiles = gl.allocate_shared_memory(dtype, [2, 1, HALF, DIM], k_desc.layout)
    k_tiles = gl.allocate_shared_memory(dtype, [STAGES, 1, BLOCK, DIM], k_desc.layout)
    v_tiles = gl.allocate_shared_memory(dtype, [STAGES, 1, BLOCK, DIM], v_desc.layout)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIERS)
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIERS)
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIERS)
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIERS)
    turn = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIERS)
    for i in gl.static_range(2):
        mbarrier.init(turn.index(i), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        # both consumers leave a tile
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_empty.index(i), count=2)
    fence_async_shared()

    gl.warp_specialize(
        [
            (_attend, (
                q_ptr, out_ptr, lse_ptr, rows_ptr, q_tiles, k_tiles, v_tiles,
                k_full, v_full, k_empty, v_empty, turn,
                blocks, rest, queries - first, q_stride_t, out_stride_t, scale,
                0, HEAD_DIM, DIM, STAGES, GATHER, LSE, TURNS,
            )),
            (_attend, (
                q_2, out_2, lse_2, rows_2, q_tiles, k_tiles, v_tiles,
                k_full, v_full, k_empty, v_empty, turn,
                blocks, rest, queries - first - HALF, q_stride_t, out_stride_t, scale,
                1, HEAD_DIM, DIM, STAGES, GATHER, LSE, TURNS,
            )),
            (_copy_tiles, (
                k_desc, v_desc, k_tiles, v_tiles, k_full, v_full, k_empty, v_empty,
                index_ptr + row * width, blocks, head // shared, DIM, STAGES,
            )),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


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
) -> Tensor:
    """A `Kernel` that gathers its queries, and never waits for the GPU.

    Takes 16 bits, head_dim 64, 96 and 128, and blocks of 128 tokens. Memory on top of the output:
    copies of k and v where they are not contiguous.
    """
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[-2]
    q = q if q.stride(-1) == 1 else q.contiguous()
    out = torch.empty_like(q)
    tokens = row_tokens(kept, keys, key_lengths)
    options = launch_options(head_dim)
    _forward[(tokens.shape[-1], batch * heads)](
        q,
        *(_tiles(x.contiguous(), options["DIM"]) for x in (k, v)),
        out,
        out if lse is None else lse,
        tokens if rows is None else rows,
        kept.index.contiguous(),
        tokens,
        launch_order(tokens),
        *q.stride()[:3],
        *out.stride()[:3],
        rows_stride(rows),
        queries,
        kept.index.shape[-1],
        heads,
        heads // k.shape[1],
        (head_dim**-0.5 if scale is None else scale) * log2(e),
        **options,
        GATHER=rows is not None,
        LSE=lse is not None,
    )
    return out


def launch_options(head_dim: int) -> dict[str, Any]:
    """Compile-time sizes and launch settings: those that compile without spilled registers."""
    return {
        "HEAD_DIM": head_dim,
        "DIM": triton.next_power_of_2(head_dim),
        "STAGES": 2,
        "TURNS": True,
        "num_warps": 4,
        # 384 threads at entry; consumers then take registers that the copying warp gives back
        "maxnreg": 168,
    }


def _tiles(x: Tensor, padded_dim: int) -> TensorDescriptor:
    """What TMA needs to copy tiles of (batch, kv_heads, keys, head_dim).

    Three-dimensional, so that a tile never reaches into the next head: what is missing is zero.
    """
    _, _, keys, head_dim = x.shape
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
    shape = [x.shape[0] * x.shape[1], keys, head_dim]
    strides = [keys * head_dim, head_dim, 1]
    return TensorDescriptor(x, shape, strides, [1, BLOCK_SIZE, padded_dim], layout)
