"""Recognise each head as spatial, temporal or textural, and give it the static mask of its type.

Source: RainFusion, arXiv 2505.21036, and the Ascend code of Wan 2.2; a mass target is RainFusion+, where a
head has the narrowest of three widths that reaches it. Differs: the first frame is pinned at the end, as in
the code; a textural head keeps a leading share of an ordered dither, of which half is the paper's chessboard;
RainFusion+ looks at 64 queries; recognition is repeated on every step unless `refresh` says otherwise.
"""

import functools

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.order import TokenOrder, order_for, per_head
from rainfusion_core.selection.choice import exact, keep_mask, within
from rainfusion_core.selection.heads import TYPES, head_types
from rainfusion_core.selection.sampling import block_sums, spread_places, token_weights
from rainfusion_core.selectors.base import OWN, Call, Method

ORDER_OF_TYPE = {"spatial": "thw", "temporal": "hwt", "textural": "dither"}
WIDTHS = (0.125, 0.25, 0.5)  # densities of RainFusion+
SAMPLES = 64


@exact
def arrange(q: Tensor, k: Tensor, call: Call) -> TokenOrder:
    """The order of each head's type."""
    found, refresh = call.memory.found, call.option("refresh")
    due = refresh > 0 and call.memory.step % refresh == 0
    if "kinds" not in found or due:
        found["kinds"] = head_types(
            q, k, call.layout, scale=call.scale, sparsity=0.5, threshold=call.option("threshold")
        ).kinds
    return per_head(_orders(call, q.device), found["kinds"])


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The mask of each head's type, as wide as the sparsity or the mass target says."""
    base = _orders(call, q.device)[0]
    batch, heads = q.shape[:2]
    if call.config.mass is None:
        mask = _masks(base, 1 - call.config.sparsity, call.config.budget)[order.found]
    else:
        mask = _narrowest(q, k, order, call, base)
    return keep_mask(mask, base, call.key_lengths, batch, heads)


def _orders(call: Call, device: torch.device) -> list[TokenOrder]:
    names = [ORDER_OF_TYPE[kind] for kind in TYPES]
    return [order_for(call.layout, call.config, name=name).on(device) for name in names]


@functools.lru_cache(maxsize=32)
def _masks(order: TokenOrder, density: float, budget: str) -> Tensor:
    """(types, query_blocks, key_blocks) bool: a band, the same band, and the leading columns."""
    config = SparseConfig(sparsity=1 - density, budget=budget)
    blocks = torch.arange(order.blocks, device="cpu")
    reach = {"band": (blocks[:, None] - blocks).abs(), "leading": blocks.repeat(order.blocks, 1)}
    shapes = ["leading" if kind == "textural" else "band" for kind in TYPES]
    return torch.stack([within(reach[shape].float(), order, config) for shape in shapes])


def _narrowest(q: Tensor, k: Tensor, order: TokenOrder, call: Call, base: TokenOrder) -> Tensor:
    """(batch, heads, query_blocks, key_blocks): for each head the narrowest mask that reaches the mass."""
    rows = spread_places(order.tokens - call.layout.text_tokens, SAMPLES, q.device)
    weights = token_weights(q, k, rows, scale=call.scale, key_lengths=call.key_lengths)
    sums = block_sums(weights, order.block_size)
    at = rows // order.block_size
    pinned = base.pinned | base.pinned[:, None]
    target, chosen = call.config.mass or 0.0, None
    for density in reversed(WIDTHS):
        mask = (_masks(base, density, call.config.budget) | pinned)[order.found]
        recall = (sums * mask[..., at, :]).sum(-1).mean(-1)
        enough = (recall >= target)[..., None, None]
        chosen = mask if chosen is None else torch.where(enough, mask, chosen)
    assert chosen is not None
    return chosen


METHOD = Method(
    select=select,
    arrange=arrange,
    order=OWN,
    sink=True,
    options={"threshold": 0.9, "refresh": 1},
)
