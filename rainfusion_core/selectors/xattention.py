"""Score pairs of blocks by the sums along their antidiagonals, which every vertical and slash line crosses.

Source: XAttention, arXiv 2503.16428, and its code. Differs: padding is left out, no key block is kept
by a side effect of the code (there: block 0), and there is a fixed share besides the threshold, which is
the mass target here (0.9 or 0.95 there).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import LEAST, scored
from rainfusion_core.selectors.base import Call, Method


def scores(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> Tensor:
    """Logarithm of the estimated mass of every pair of blocks."""
    stride, block_size = call.option("stride"), order.block_size
    batch, heads, tokens, _ = q.shape
    shared = heads // k.shape[1]
    ends = [tokens] * batch if call.key_lengths is None else call.key_lengths
    mass = q.new_empty((batch, heads, order.blocks, order.blocks), dtype=torch.float32)
    starts = torch.arange(order.blocks * block_size // stride, device=q.device) * stride
    for item in range(batch):
        for head in range(heads):
            queries = _groups(q[item, head], order, stride, backwards=True)
            keys = k[item, head // shared]
            real = torch.arange(tokens, device=q.device) < ends[item]
            keys = _groups(keys.where(real[:, None], 0), order, stride, backwards=False)
            logits = (queries @ keys.mT) * (call.scale / stride)
            logits.masked_fill_(starts >= ends[item], float("-inf"))
            cells = logits.softmax(dim=-1).unflatten(-1, (order.blocks, -1)).sum(-1)
            mass[item, head] = cells.unflatten(0, (order.blocks, -1)).sum(1)
    return mass.clamp_(min=LEAST).log_()


def _groups(x: Tensor, order: TokenOrder, stride: int, *, backwards: bool) -> Tensor:
    """(groups, stride * head_dim) float32: `stride` tokens in a row, one after the other or reversed."""
    missing = order.blocks * order.block_size - len(x)
    groups = pad(x.float(), (0, 0, 0, missing)).unflatten(0, (-1, stride))
    return (groups.flip(1) if backwards else groups).flatten(1)


def check(config: SparseConfig) -> None:
    stride = config.options["stride"]
    if int(stride) < 1 or config.block_size % int(stride):
        raise ConfigError(
            f"method option stride must divide the block size, got {stride} and {config.block_size}"
        )


METHOD = Method(
    select=scored(scores), scores=scores, order="raster", options={"stride": 16}, check=check
)
