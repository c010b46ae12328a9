"""The exact best key blocks of every row as an index list, in Triton: no sort, and nobody waits.

The k-th best score is found bit by bit, by counting how many scores are not below a candidate.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks


@triton.jit
def _choose(
    scores_ptr, pinned_ptr, lengths_ptr, index_ptr, count_ptr,
    rows, heads, columns, width, chosen,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    DROP_PINNED: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    LEAST: tl.constexpr = -2147483648
    i_head = tl.program_id(1).to(tl.int64)  # [batch, heads] flattened
    o_row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    o_column = tl.arange(0, COLUMNS)[None, :]
    m_row = o_row < rows
    m_column = o_column < columns
    row = i_head * rows + o_row
    mask = m_row[:, None] & m_column
    x = tl.load(scores_ptr + row[:, None] * columns + o_column, mask=mask, other=0.0)
    # integers in the order of the scores: of negative floats the larger bits are the smaller ones
    bits = x.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # [ROWS, COLUMNS]
    pinned = tl.load(pinned_ptr + o_column, mask=m_column, other=0) != 0
    real = m_column
    if PADDING:
        real &= o_column * BLOCK < tl.load(lengths_ptr + i_head // heads).to(tl.int32)
    free = real
    if DROP_PINNED:
        free &= pinned == 0
    key = tl.where(free, key, LEAST)

    # the greatest bound that at least `chosen` keys reach; the sign is its first bit
    bound = tl.where(tl.sum((key >= 0).to(tl.int32), 1) >= chosen, 0, LEAST)
    for i in tl.static_range(31):
        candidate = bound | (1 << (30 - i))
        reach = tl.sum((key >= candidate[:, None]).to(tl.int32), 1)
        bound = tl.where(reach >= chosen, candidate, bound)
    above = key > bound[:, None]
    equal = (key == bound[:, None]).to(tl.int32)
    # of equal scores the first columns
    left = chosen - tl.sum(above.to(tl.int32), 1)
    kept = above | ((equal != 0) & (tl.cumsum(equal, 1) <= left[:, None]))
    kept |= pinned | (tl.load(pinned_ptr + o_row, mask=m_row, other=0) != 0)[:, None]
    kept &= real
    rank = tl.cumsum(kept.to(tl.int32), 1)
    count = tl.sum(kept.to(tl.int32), 1)
    # the others behind them, as in `blocks.kept_from_mask`
    place = tl.where(kept, rank - 1, count[:, None] + o_column - rank)
    index = o_column + tl.zeros([ROWS, COLUMNS], tl.int32)
    tl.store(index_ptr + row[:, None] * width + place, index, mask=mask & (place < width))
    tl.store(count_ptr + row, count, mask=m_row)


def best_blocks(
    scores: Tensor,
    pinned: Tensor,
    chosen: int,
    *,
    block_size: int,
    drop_pinned: bool,
    width: int,
    key_lengths: Tensor | None = None,
) -> KeptBlocks:
    """The `chosen` best columns of every row and the pinned ones; all columns of a pinned row.

    Args:
        scores: (batch, heads, blocks, blocks) float32, contiguous; at most 16 384 blocks.
        pinned: (blocks,) bool.
        drop_pinned: pinned columns do not count among the chosen ones.
        width: columns of the index, at least the kept ones of the fullest row.
        key_lengths: (batch,) int; blocks from this token on are padding and never kept.
    """
    batch, heads, rows, columns = scores.shape
    index = torch.empty((*scores.shape[:3], width), dtype=torch.int32, device=scores.device)
    count = torch.empty(scores.shape[:3], dtype=torch.int32, device=scores.device)
    padded_columns = max(16, triton.next_power_of_2(columns))
    together = max(1, 4096 // padded_columns)
    _choose[(triton.cdiv(rows, together), batch * heads)](
        scores,
        pinned.to(torch.uint8),
        count if key_lengths is None else key_lengths.to(scores.device),
        index,
        count,
        rows,
        heads,
        columns,
        width,
        chosen,
        BLOCK=block_size,
        COLUMNS=padded_columns,
        ROWS=together,
        DROP_PINNED=drop_pinned,
        PADDING=key_lengths is not None,
        num_warps=4 if padded_columns <= 4096 else 16,
    )
    return KeptBlocks(index, count, columns, block_size)
