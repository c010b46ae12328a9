"""What a GPU kernel knows of each row of blocks before it starts: how many keys, and when to start."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks


@triton.jit
def _count_tokens(
    index_ptr, count_ptr, lengths_ptr, tokens_ptr, rows, keys, width,
    BLOCK: tl.constexpr, PADDED_WIDTH: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    i_row = tl.program_id(0).to(tl.int64)
    i_batch = i_row // rows
    end = keys
    if PADDING:
        end = tl.minimum(keys, tl.load(lengths_ptr + i_batch).to(tl.int32))
    o_index = tl.arange(0, PADDED_WIDTH)
    m_index = o_index < tl.load(count_ptr + i_row)
    block = tl.load(index_ptr + i_row * width + o_index, mask=m_index, other=0)
    room = tl.minimum(tl.maximum(end - block * BLOCK, 0), BLOCK)
    tl.store(tokens_ptr + i_row, tl.sum(tl.where(m_index, room, 0), 0))


def row_tokens(kept: KeptBlocks, keys: int, key_lengths: Tensor | None) -> Tensor:
    """Same as `torch_blocks.kept_tokens`, in one pass over the index, as int32."""
    tokens = torch.empty_like(kept.count)
    width = kept.index.shape[-1]
    _count_tokens[(tokens.numel(),)](
        kept.index.contiguous(),
        kept.count.contiguous(),
        kept.count if key_lengths is None else key_lengths.to(tokens.device),
        tokens,
        tokens.shape[1:].numel(),
        keys,
        width,
        BLOCK=kept.block_size,
        PADDED_WIDTH=triton.next_power_of_2(width),
        PADDING=key_lengths is not None,
    )
    return tokens


def launch_order(tokens: Tensor) -> Tensor:
    """(batch, heads, query_blocks) int32: in which order the rows of a head start.

    The longest first, so that no long one is left over at the end; else as they lie in the
    sequence, so that neighbours read the same keys while the cache still holds them.
    """
    return tokens.argsort(dim=-1, descending=True, stable=True).to(torch.int32)


def rows_stride(rows: Tensor | None) -> int:
    """Elements from the rows of one head to those of the next; all heads share those of a vector."""
    return 0 if rows is None or rows.dim() == 1 else rows.shape[-1]
