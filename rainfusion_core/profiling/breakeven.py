"""From how many tokens on sparse attention is faster than dense, measured on this device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from rainfusion_core.config import SparseConfig
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.pipeline import DTYPES
from rainfusion_core.report import AttentionSpeed
from rainfusion_core.speed import attention_speed

LADDER = (256, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class BreakEven:
    """The crossing of one sparsity.

    Attributes:
        tokens: where both take equally long, interpolated; None if that is outside of `points`.
        sparse_is_faster: at the greatest number of tokens.
    """

    sparsity: float
    tokens: float | None
    sparse_is_faster: bool
    points: tuple[AttentionSpeed, ...]

    @property
    def text(self) -> str:
        least, greatest = self.points[0].tokens, self.points[-1].tokens
        if self.tokens is not None:
            return f"about {self.tokens:.0f} tokens"
        return f"below {least} tokens" if self.sparse_is_faster else f"above {greatest} tokens"


def break_even(
    grid: LatentGrid,
    config: SparseConfig,
    known: AttentionSpeed,
    *,
    device: torch.device,
    ladder: Sequence[int] = LADDER,
) -> BreakEven:
    """Time attention alone, on random tokens, at several token counts below the model's.

    Args:
        grid: of the model; smaller ones keep its frames and shrink its sides.
        known: a call of the whole grid that was measured already; the others are like it.
        ladder: token counts to come near to; those not below the grid's are left out.
    """
    points = []
    for small in _grids(grid, ladder):
        shape = (1, known.heads, small.tokens, known.head_dim)
        q, k, v = torch.randn((3, *shape), device=device, dtype=DTYPES[known.dtype])
        points.append(attention_speed(q, k, v, TokenLayout((small,)), config))
    points.append(known)
    return BreakEven(config.sparsity, crossing(points), known.speedup > 1, tuple(points))


def crossing(points: Sequence[AttentionSpeed]) -> float | None:
    """Tokens from which on the speed-up stays above 1: a line between logarithms. None: nowhere."""
    for low, high in reversed(list(pairwise(points))):
        if low.speedup < 1 <= high.speedup:
            below, above = math.log(low.speedup), math.log(high.speedup)
            share = -below / (above - below)
            return low.tokens * (high.tokens / low.tokens) ** share
        if high.speedup < 1:
            return None
    return None


def _grids(grid: LatentGrid, ladder: Sequence[int]) -> list[LatentGrid]:
    """Distinct grids of the same shape near the token counts of the ladder, ascending."""
    found = {}
    for wanted in ladder:
        if wanted < grid.tokens:
            scale = math.sqrt(wanted / grid.tokens)
            small = replace(
                grid,
                height=max(2, round(grid.height * scale)),
                width=max(2, round(grid.width * scale)),
            )
            found[small.tokens] = small
    return [found[tokens] for tokens in sorted(found)]
