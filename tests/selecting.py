"""What tests of selectors share: orders of small grids, a call, and kept blocks as lists."""

from typing import Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import TokenOrder, token_order
from rainfusion_core.selectors import SELECTORS, Call, Memory, Method


def order_of(*segments: LatentGrid | Text, block_size: int = 16, **options: Any) -> TokenOrder:
    return token_order(TokenLayout(segments), block_size=block_size, **options)


def call_of(
    layout: TokenLayout,
    method: str = "rainfusion2",
    *,
    key_lengths: Tensor | None = None,
    scale: float = 1.0,
    memory: Memory | None = None,
    **settings: Any,
) -> Call:
    """A call with the settings of `SparseConfig` that differ from the method's."""
    config = SELECTORS[method].complete(SparseConfig(method=method, **settings))
    return Call(layout, config, scale, key_lengths, memory or Memory())


def select(method: str, q: Tensor, k: Tensor, order: TokenOrder, **settings: Any) -> KeptBlocks:
    """The choice of a method from q and k that are already in `order`, whose block size counts."""
    call = call_of(order.layout, method, **settings)
    return SELECTORS[method].select(q, k, order, call)


def kept_lists(kept: KeptBlocks) -> list[list[list[list[int]]]]:
    """Kept key blocks of every (batch, head, query block), as written in the index."""
    rows = kept.index.flatten(0, -2).tolist(), kept.count.flatten().tolist()
    lists = [row[:count] for row, count in zip(*rows, strict=True)]
    _, heads, query_blocks = kept.count.shape
    heads_of = [lists[i : i + query_blocks] for i in range(0, len(lists), query_blocks)]
    return [heads_of[i : i + heads] for i in range(0, len(heads_of), heads)]


def qk(order: TokenOrder, *, batch=2, heads=3, key_heads=None, dtype=torch.float32) -> list[Tensor]:
    sizes = (batch, heads, order.tokens, 8), (batch, key_heads or heads, order.tokens, 8)
    return [torch.randn(size).to(dtype) for size in sizes]


def one_number_keys(values: list[float], block_size: int) -> list[Tensor]:
    """q of ones and k whose block means are `values`; head_dim 1, so scores equal the values."""
    k = torch.tensor(values).repeat_interleave(block_size).view(1, 1, -1, 1)
    return [torch.ones_like(k), k]


SEEN: list[tuple[int, int, int, int]] = []  # what `PROBE` was told, call by call


def _probe(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    memory = call.memory
    calls = memory.found.setdefault("calls", 0)
    memory.found["calls"] += 1
    SEEN.append((memory.step, memory.steps, memory.layer, calls))
    return SELECTORS["rainfusion2"].select(q, k, order, call)


PROBE = Method(select=_probe)
