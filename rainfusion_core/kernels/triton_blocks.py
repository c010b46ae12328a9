"""Block-sparse attention forward pass in Triton, for NVIDIA from compute capability 8.0 and for AMD.

Each program owns the rows of one query block, or some of them, and walks the block's list of kept
key blocks, carrying the running maximum and sum of the softmax (FlashAttention-2, arXiv 2307.08691).
Blocks are listed in ascending order, so only the last one can be ragged: the loop has no mask, and
one masked block follows it.
"""

from math import e, log2
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels.torch_blocks import kept_tokens


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
def _forward(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    index_ptr,
    tokens_ptr,
    launch_ptr,
    queries,
    keys,
    width,
    shared,
    scale,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    LSE: tl.constexpr,
):
    TILES: tl.constexpr = BLOCK // TILE
    PARTS: tl.constexpr = BLOCK // ROWS
    i_head = tl.program_id(1).to(tl.int64)
    first_row = i_head * (tl.num_programs(0) // PARTS)
    i_block = tl.load(launch_ptr + first_row + tl.program_id(0) // PARTS).to(tl.int64)
    row = first_row + i_block
    i_kv = i_head // shared  # [batch, heads] flattened: `shared` heads in a row have one key head
    o_dim = tl.arange(0, PADDED_DIM)
    m_dim = o_dim[None, :] < HEAD_DIM
    o_q = i_block * BLOCK + (tl.program_id(0) % PARTS) * ROWS + tl.arange(0, ROWS)
    m_q = (o_q[:, None] < queries) & m_dim
    p_q = (i_head * queries + o_q)[:, None] * HEAD_DIM + o_dim[None, :]
    q = tl.load(q_ptr + p_q, mask=m_q, other=0.0)  # [ROWS, PADDED_DIM]
    k_head = k_ptr + i_kv * keys * HEAD_DIM
    v_head = v_ptr + i_kv * keys * HEAD_DIM
    index = index_ptr + row * width
    tokens = tl.load(tokens_ptr + row)
    full = tokens // BLOCK
    rest = tokens % BLOCK

    # finite: a row without keys must give zeros, and inf - inf is NaN
    peak = tl.full([ROWS], -1.0e38, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for i_tile in tl.range(0, full * TILES, num_stages=STAGES):
        first = tl.load(index + i_tile // TILES) * BLOCK + (i_tile % TILES) * TILE
        o_k = first + tl.arange(0, TILE)
        p_k = o_k[:, None] * HEAD_DIM + o_dim[None, :]
        if HEAD_DIM == PADDED_DIM:
            k = tl.load(k_head + p_k)  # [TILE, PADDED_DIM]
            v = tl.load(v_head + p_k)
        else:
            k = tl.load(k_head + p_k, mask=m_dim, other=0.0)
            v = tl.load(v_head + p_k, mask=m_dim, other=0.0)
        acc, peak, total = _step(q, k, v, acc, peak, total, scale, o_k, False, PRECISION)
    if rest > 0:
        first = tl.load(index + full) * BLOCK
        for i_rest in tl.static_range(TILES):
            o_rest = i_rest * TILE + tl.arange(0, TILE)
            p_k = (first + o_rest)[:, None] * HEAD_DIM + o_dim[None, :]
            m_k = o_rest < rest
            k = tl.load(k_head + p_k, mask=m_k[:, None] & m_dim, other=0.0)
            v = tl.load(v_head + p_k, mask=m_k[:, None] & m_dim, other=0.0)
            acc, peak, total = _step(q, k, v, acc, peak, total, scale, m_k, True, PRECISION)
    divisor = tl.where(total > 0, total, 1.0)
    out = acc / divisor[:, None]
    tl.store(out_ptr + p_q, out.to(out_ptr.dtype.element_ty), mask=m_q)
    if LSE:
        # peak and total are of base 2
        lse = tl.where(
            total > 0, (peak + tl.math.log2(divisor)) * 0.6931471805599453, float("-inf")
        )
        tl.store(lse_ptr + i_head * queries + o_q, lse, mask=o_q < queries)


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
    """Same contract as `kernels.reference.attention`, forward only; never waits for the GPU."""
    batch, heads, queries, head_dim = q.shape
    q, k, v = (x.contiguous() for x in (q, k, v))
    out = torch.empty_like(q)
    tokens = kept_tokens(kept, k.shape[-2], key_lengths).to(torch.int32)
    # the longest rows start first, so that no long one is left over at the end
    launch = tokens.argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    options = launch_options(head_dim, kept.block_size, q.dtype, _architecture(q.device))
    parts = kept.block_size // options["ROWS"]
    _forward[(tokens.shape[-1] * parts, batch * heads)](
        q,
        k,
        v,
        out,
        out if lse is None else lse,
        kept.index.contiguous(),
        tokens,
        launch,
        queries,
        k.shape[-2],
        kept.index.shape[-1],
        heads // k.shape[1],
        (head_dim**-0.5 if scale is None else scale) * log2(e),
        **options,
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
    rows, tile, stages = 128, 128 if architecture == "sm_90" else 64, 1 if amd else 2
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
        "num_warps": 8 if block_size >= 128 else 4,
        "num_stages": stages,
        "enable_fp_fusion": True,
    } | ({"waves_per_eu": 2, "matrix_instr_nonkdim": 16} if amd else {})


def _architecture(device: torch.device) -> str:
    if device.type != "cuda":
        return "sm_80"  # the interpreter
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(device).gcnArchName)
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
