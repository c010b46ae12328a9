"""XAttention's scores with a stride of 8; the first and the last key block stay, and a share caps the mass.

Source: MindIE-SD, sparse type ada_bsa. Differs: its threshold is the mass target here; the first and
the last block compete with the others as well, and where the budget is "total" they are paid for.
"""

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import exact, keep
from rainfusion_core.selectors.base import Call, Method
from rainfusion_core.selectors.xattention import check, scores

FEWEST_BLOCKS = 10  # of a row that is capped


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The fewest blocks that reach the mass target, but no more than the share of the sparsity."""
    found = scores(q, k, order, call)
    blocks = torch.arange(order.blocks, device=q.device)
    last = torch.full((len(q),), order.tokens, device=q.device)
    last = last if call.key_lengths is None else call.key_lengths.to(q.device)
    last = ((last - 1) // order.block_size)[:, None, None, None]
    forced = (blocks == 0) & call.option("sink") | (blocks == last) & call.option("recent")
    capped = order.blocks >= FEWEST_BLOCKS
    most = max(1, int(order.blocks * (1 - call.config.sparsity) + 1e-9)) if capped else None
    return keep(found, order, call, forced=forced, most=most)


METHOD = Method(
    select=select,
    scores=scores,
    order="raster",
    options={"stride": 8, "sink": True, "recent": True},
    check=check,
)
