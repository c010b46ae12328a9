"""Compare means of cells of 8 x 16 tokens of a frame, and keep the best pairs of the whole head.

Source: DraftAttention, arXiv 2505.14708, and its code. Differs: any grid, where cells at its sides are
cut and blocks go on across them (there both sides must divide by the cell); means in float32; every row
keeps its best block; with a mass target, rows are cut one by one.
"""

from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import exact, keep_of_head
from rainfusion_core.selectors.base import Call, Method
from rainfusion_core.selectors.rainfusion2 import scores


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The greatest entries of the softmax of the draft, of each head."""
    return keep_of_head(scores(q, k, order, call), order, call)


METHOD = Method(select=select, scores=scores, order="1x8x16")
