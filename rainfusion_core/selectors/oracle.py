"""Keep the key blocks that hold the most softmax mass: what no prediction can beat, at the cost of dense attention.

Source: none, it is the yardstick. The mass of a pair is exact, summed over its tokens in float32, one
query block at a time, so memory stays that of a few rows.
"""

from torch import Tensor

from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import LEAST, scored
from rainfusion_core.selection.mass import block_mass
from rainfusion_core.selectors.base import Call, Method


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Logarithm of the exact mass of every pair of blocks."""
    mass = block_mass(q, k, order.block_size, scale=call.scale, key_lengths=call.key_lengths)
    return mass.clamp_(min=LEAST).log_()


METHOD = Method(select=scored(scores), scores=scores)
