"""Block-sparse attention forward pass in Triton, for NVIDIA from compute capability 8.0 and for AMD.

Each program owns the rows of one query block, or some of them, and walks the block's list of kept
key blocks, carrying the running maximum and sum of the softmax (FlashAttention-2, arXiv 2307.08691).
Blocks are listed in ascending order, so only the last one can be ragged: the loop has no mask, and
one masked block follows it. Keys and values come through pointers, or on data centre Blackwell
through descriptors, which the copy engine (TMA) reads.
"""

from math import e, log2
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels.row_plan import launch_order, row_tokens, rows_stride


@triton.jit
def _step(q, k, v, acc, peak, total, scale, m_k, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """One tile of keys; `scale` holds log2(e), so exp2 serves as exp."""
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [ROWS, TILE]
    if MASKED:
        logits = tl.where(m_k[None, :], logits, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(logits, 1) * scale)
    weights = tl.math.exp2(logits * scale - new_peak[:, None])
    shrink = tl.math.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_peak, total


@triton.jit
def _tile(
    x, i_kv, keys, first, m_k,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, TILE: tl.constexpr,
    MASKED: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """[TILE, PADDED_DIM] keys or values from `first` on."""
    if DESCRIPTORS:
        # what lies outside of the head is zero
        tile = x.load([i_kv, first, 0]).reshape(TILE, PADDED_DIM)
    else:
        o_dim = tl.arange(0, PADDED_DIM)[None, :]
        o_k = (first + tl.arange(0, TILE))[:, None]
        pointers = x + i_kv.to(tl.int64) * keys * HEAD_DIM + o_k * HEAD_DIM + o_dim
        if MASKED:
            tile = tl.load(pointers, mask=m_k[:, None] & (o_dim < HEAD_DIM), other=0.0)
        elif HEAD_DIM != PADDED_DIM:
            tile = tl.load(pointers, mask=o_dim < HEAD_DIM, other=0.0)
        else:
            tile = tl.load(pointers)
    return tile


@triton.jit
def _forward(
    q_ptr, k, v, out_ptr, lse_ptr, rows_ptr, index_ptr, tokens_ptr, launch_ptr,
    q_stride_b, q_stride_h, q_stride_t, out_stride_b, out_stride_h, out_stride_t, rows_stride,
    queries, keys, width, heads, shared, scale,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    SPECIALIZE: tl.constexpr, GATHER: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    TILES: tl.constexpr = BLOCK // TILE
    PARTS: tl.constexpr = BLOCK // ROWS
    head = tl.program_id(1)  # [batch, heads] flattened: `shared` heads in a row have one key head
    i_head = head.to(tl.int64)
    first_row = i_head * (tl.num_programs(0) // PARTS)
    i_block = tl.load(launch_ptr + first_row + tl.program_id(0) // PARTS)
    row = first_row + i_block
    o_dim = tl.arange(0, PADDED_DIM)[None, :]
    o_q = i_block * BLOCK + (tl.program_id(0) % PARTS) * ROWS + tl.arange(0, ROWS)
    m_q = o_q < queries
    place = o_q.to(tl.int64)
    if GATHER:
        place = tl.load(rows_ptr + i_head * rows_stride + o_q, mask=m_q, other=0)
    m_tile = m_q[:, None] & (o_dim < HEAD_DIM)
    q_ptr += i_head // heads * q_stride_b + i_head % heads * q_stride_h
    q = tl.load(q_ptr + place[:, None] * q_stride_t + o_dim, mask=m_tile, other=0.0)
    index = index_ptr + row * width
    tokens = tl.load(tokens_ptr + row)
    full = tokens // BLOCK
    rest = tokens % BLOCK

    # finite: a row without keys must give zeros, and inf - inf is NaN
    peak = tl.full([ROWS], -1.0e38, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    i_kv = head // shared
    for i_tile in tl.range(0, full * TILES, num_stages=STAGES, warp_specialize=SPECIALIZE):
        first = tl.load(index + i_tile // TILES) * BLOCK + (i_tile % TILES) * TILE
        k_tile = _tile(k, i_kv, keys, first, m_q, HEAD_DIM, PADDED_DIM, TILE, False, DESCRIPTORS)
        v_tile = _tile(v, i_kv, keys, first, m_q, HEAD_DIM, PADDED_DIM, TILE, False, DESCRIPTORS)
        acc, peak, total = _step(q, k_tile, v_tile, acc, peak, total, scale, m_q, False, PRECISION)
    if rest > 0:
        first = tl.load(index + full) * BLOCK
        for i_rest in tl.static_range(TILES):
            m_k = i_rest * TILE + tl.arange(0, TILE) < rest
            at = first + i_rest * TILE
            k_tile = _tile(k, i_kv, keys, at, m_k, HEAD_DIM, PADDED_DIM, TILE, True, DESCRIPTORS)
            v_tile = _tile(v, i_kv, keys, at, m_k, HEAD_DIM, PADDED_DIM, TILE, True, DESCRIPTORS)
            acc, peak, total = _step(
                q, k_tile, v_tile, acc, peak, total, scale, m_k, True, PRECISION
            )
    divisor = tl.where(total > 0, total, 1.0)
    out = acc / divisor[:, None]
    out_ptr += i_head // heads * out_stride_b + i_head % heads * out_stride_h
    out_ptrs = out_ptr + place[:, None] * out_stride_t + o_dim
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=m_tile)
    if LSE:
        # peak and total are of base 2
        lse = tl.where(
            total > 0, (peak + tl.math.log2(divisor)) * 0.6931471805599453, float("-inf")
        )
        tl.store(lse_ptr + i_head * queries + place, lse, mask=m_q)


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

    Memory on top of the output: copies of k and v where they are not contiguous.
    """
    batch, heads, _, head_dim = q.shape
    options = launch_options(head_dim, kept.block_size, q.dtype, architecture_of(q.device))
    q = q if q.stride(-1) == 1 else q.contiguous()
    k, v = k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    tokens = row_tokens(kept, k.shape[-2], key_lengths)
    parts = kept.block_size // options["ROWS"]
    _forward[(tokens.shape[-1] * parts, batch * heads)](
        q,
        *((_tiles(k, options), _tiles(v, options)) if options["DESCRIPTORS"] else (k, v)),
        out,
        out if lse is None else lse,
        tokens if rows is None else rows,
        kept.index.contiguous(),
        tokens,
        launch_order(tokens),
        *q.stride()[:3],
        *out.stride()[:3],
        rows_stride(rows),
        q.shape[-2],
        k.shape[-2],
        kept.index.shape[-1],
        heads,
        heads // k.shape[1],
        (head_dim**-0.5 if scale is None else scale) * log2(e),
        **options,
        GATHER=rows is not None,
        LSE=lse is not None,
    )
    return out


def launch_options(
    head_dim: int, block_size: int, dtype: torch.dtype, architecture: str
) -> dict[str, Any]:
    """Compile-time sizes and launch settings.

    For head_dim 64 and 128 in 16 bits they are those that the compilers report to need the fewest
    spilled registers; float32 is there to be exact, not fast.

    Args:
        architecture: "sm_90" and the like for NVIDIA, "gfx942" and the like for AMD.
    """
    amd = architecture.startswith("gfx")
    padded_dim = max(16, triton.next_power_of_2(head_dim))
    descriptors = _descriptors_pay(head_dim, block_size, dtype, architecture)
    rows, tile, stages = 128, 128 if architecture == "sm_90" or descriptors else 64, 1 if amd else 2
    if dtype == torch.float32:
        rows, tile, stages = 32, 32, 1
    if padded_dim > 128:
        rows, tile = min(rows, 64), 32
    rows, tile = min(rows, block_size), min(tile, block_size)
    return {
        "HEAD_DIM": head_dim,
        "PADDED_DIM": padded_dim,
        "BLOCK": block_size,
        "ROWS": rows,
        "TILE": tile,
        "STAGES": stages,
        # three products in the tensor cores' own 19 bits add up to float32
        "PRECISION": "ieee" if amd else "tf32x3",
        "DESCRIPTORS": descriptors,
        # elsewhere the compiler ignores it, and may stop to in some release
        "SPECIALIZE": descriptors,
        "num_warps": 8 if block_size >= 128 else 4,
        "num_stages": stages,
        "enable_fp_fusion": True,
    } | ({"waves_per_eu": 2, "matrix_instr_nonkdim": 16} if amd else {})


def _descriptors_pay(head_dim: int, block_size: int, dtype: torch.dtype, architecture: str) -> bool:
    """On Hopper there is a kernel of its own, and what has no TMA computes its addresses slowly."""
    blackwell = architecture in ("sm_100", "sm_103")
    return blackwell and head_dim in (64, 96, 128) and block_size == 128 and dtype.itemsize == 2


def _tiles(x: Tensor, options: dict[str, Any]) -> Any:
    """Descriptor of (batch, kv_heads, keys, head_dim); a tile never reaches into the next head."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    _, _, keys, head_dim = x.shape
    shape, strides = [x.shape[0] * x.shape[1], keys, head_dim], [keys * head_dim, head_dim, 1]
    return TensorDescriptor(x, shape, strides, [1, options["TILE"], options["PADDED_DIM"]])


def architecture_of(device: torch.device) -> str:
    """ "sm_90" and the like for NVIDIA, "gfx942" and the like for AMD."""
    if device.type != "cuda":
        return "sm_80"  # the interpreter
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(device).gcnArchName)
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
