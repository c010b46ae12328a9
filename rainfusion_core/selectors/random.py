"""Keep key blocks at random: what a prediction must beat.

Source: none, it is the other yardstick. The choice follows from the option `seed`, the step and the
layer, so a run can be repeated; conditional and unconditional passes choose alike.
"""

import torch
from torch import Tensor

from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import scored
from rainfusion_core.selectors.base import Call, Method


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Independent uniform numbers."""
    memory = call.memory
    seed = hash((call.option("seed"), memory.step, memory.layer)) % 2**63
    generator = torch.Generator(q.device).manual_seed(seed)
    shape = (*q.shape[:2], order.blocks, order.blocks)
    return torch.rand(shape, generator=generator, device=q.device)


METHOD = Method(select=scored(scores), scores=scores, static=True, options={"seed": 0})
