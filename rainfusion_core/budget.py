"""How many key blocks a query block keeps, and what share of all pairs that makes.

Queries and keys are the same tokens, so there are as many query blocks as key blocks, and a pinned
block is pinned on both sides: its row is dense, and its column is kept by every row.
"""

import math
from typing import TYPE_CHECKING

from rainfusion_core.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from rainfusion_core.order import TokenOrder

BUDGETS = ("paper", "total")


def chosen_per_row(blocks: int, pinned_blocks: int, *, sparsity: float, budget: str) -> int:
    """Key blocks that the scores choose for a query block that is not pinned.

    "paper" chooses among all key blocks and adds the pinned ones afterwards, as public code does,
    so more is kept than `1 - sparsity`. "total" chooses among the key blocks that are not pinned,
    as many as bring the share of kept pairs nearest to `1 - sparsity`, and at least one: where
    pinned blocks alone use the budget up, more is kept than asked for.

    Args:
        blocks: query blocks, and as many key blocks, pinned ones included.
        pinned_blocks: from 0 to blocks.
        sparsity: fraction to skip, in [0, 1).
        budget: one of `BUDGETS`.

    Returns:
        "paper": from 1 to blocks. "total": from 1 to blocks - pinned_blocks; 0 if all are pinned.
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity must be in [0, 1), got {sparsity}")
    if budget not in BUDGETS:
        raise UnknownName("budget", budget, BUDGETS)
    if budget == "paper":
        # 1 - 0.7 is a hair above 0.3, and must not round up to one block more
        return max(1, math.ceil(blocks * (1 - sparsity) - 1e-9))
    free = blocks - pinned_blocks
    if free == 0:
        return 0
    pairs = (1 - sparsity) * blocks**2 - pinned_blocks * blocks
    return max(1, math.floor(pairs / free - pinned_blocks + 0.5))


def density_bounds(
    blocks: int, pinned_blocks: int, *, sparsity: float, budget: str
) -> tuple[float, float]:
    """Least and greatest share of block pairs that can be kept, each in (0, 1].

    They differ for "paper" alone: the fewest pairs are kept when the scores choose pinned blocks,
    which are kept anyway, and the most when they choose none.
    """
    chosen = chosen_per_row(blocks, pinned_blocks, sparsity=sparsity, budget=budget)
    most = min(blocks, chosen + pinned_blocks)
    least = max(chosen, pinned_blocks) if budget == "paper" else most
    free = blocks - pinned_blocks
    lower, upper = ((pinned_blocks * blocks + free * row) / blocks**2 for row in (least, most))
    return lower, upper


def predicted_density(order: "TokenOrder", *, sparsity: float, budget: str) -> tuple[float, float]:
    """`density_bounds` of one order. Keys that are padding can only lower the measured density."""
    return density_bounds(order.blocks, order.pinned_blocks, sparsity=sparsity, budget=budget)
