"""Compare means as RainFusion2.0 does, but trust a mean only where the tokens of its block are alike.

Source: SpargeAttention, arXiv 2502.18137, and its code; first stage only, the kernels here skip no value
product of a kept block. Differs: key blocks are as large as query blocks (64 there); thresholds are not
tuned head by head, but as its two interfaces have them: the gate at 0.6 with a mass target (0.98 there),
and at -0.1 with a fixed share. With the "total" budget what the gate keeps is paid for, as far as that goes.
"""

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import exact, keep
from rainfusion_core.selection.pooling import block_means
from rainfusion_core.selectors.base import AUTO, Call, Method
from rainfusion_core.selectors.rainfusion2 import scores

OF_SHARE, OF_MASS = -0.1, 0.6


@exact
def select(q: Tensor, k: Tensor, order: TokenOrder, call: Call) -> KeptBlocks:
    """The best of the blocks that are alike in themselves, and every block that is not."""
    shared = q.shape[1] // k.shape[1]
    threshold, centred = _threshold(call), k
    if call.option("smooth"):
        centred = k - block_means(k, order.tokens, call.key_lengths)
    mixed_q = self_similarity(q, order.block_size) <= threshold
    mixed_k = self_similarity(centred, order.block_size, call.key_lengths) <= threshold
    mixed_k = mixed_k.repeat_interleave(shared, dim=1)[..., None, :]
    found = scores(q, k, order, call).masked_fill_(mixed_k, float("-inf"))
    return keep(found, order, call, forced=mixed_q[..., None] | mixed_k)


def _threshold(call: Call) -> float:
    """Self-similarity up to which a mean is not trusted."""
    value = call.option("similarity")
    if value == AUTO:
        return OF_SHARE if call.config.mass is None else OF_MASS
    return float(value)


def check(config: SparseConfig) -> None:
    value = config.options["similarity"]
    number = isinstance(value, int | float) and -1 <= value <= 1
    if value != AUTO and not number:
        raise ConfigError(f"method option similarity must be auto or in [-1, 1], got {value!r}")


def self_similarity(x: Tensor, block_size: int, lengths: Tensor | None = None) -> Tensor:
    """(batch, heads, blocks): mean cosine of the pairs of tokens in a block, a token with itself too."""
    directions = torch.nn.functional.normalize(x.float(), dim=-1)
    return block_means(directions, block_size, lengths).square().sum(dim=-1)


METHOD = Method(
    select=select,
    scores=scores,
    order="raster",
    options={"similarity": AUTO, "smooth": True},
    check=check,
)
