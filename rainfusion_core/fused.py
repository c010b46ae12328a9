"""The steps of `attention.sparse_attention` on a GPU, where passes over memory are what they cost.

Keys and values are put in order, and queries and keys averaged, in one pass each. Queries are never
moved: the kernel takes them from where they lie, and puts the output there.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.choice import keep
from rainfusion_core.order import TokenOrder
from rainfusion_core.selectors import Call, Method

KERNELS_THAT_GATHER = ("gluon-sm90", "triton-blocks")


def can_fuse(method: Method, call: Call, kernel: str, device: torch.device) -> bool:
    """Whether `attention` can stand in for the single steps: the method must score by means."""
    gathers = device.type == "cuda" and kernel in KERNELS_THAT_GATHER
    by_means = method.scores_of_means is not None and call.config.options == method.options
    return gathers and by_means


@torch.no_grad()
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: TokenOrder,
    method: Method,
    call: Call,
    kernel: Callable[..., Tensor],
) -> tuple[Tensor, KeptBlocks]:
    """The same as ordering, selecting, attending and restoring one after another.

    Args:
        q: (batch, heads, tokens, head_dim), k, v: (batch, key_heads, tokens, head_dim), in the
            model's order.
        kernel: one of `KERNELS_THAT_GATHER`.

    Returns:
        (batch, heads, tokens, head_dim) in the model's order, and the blocks it was computed from.
    """
    from rainfusion_core.kernels.arrange import arranged, arranged_with_means
    from rainfusion_core.kernels.triton_means import add_means

    keys = order.gather if order.keys is None else order.keys
    k, k_means, kept = _order_and_choose(q, k, keys, order, method, call)
    settings: dict[str, Any] = {
        "scale": call.scale,
        "key_lengths": call.key_lengths,
        "rows": order.gather,
    }
    if call.config.correction == "none":
        del k_means
        return kernel(q, k, arranged(v, keys), kept, **settings), kept
    v, v_means = arranged_with_means(v, keys, order.block_size, call.key_lengths)
    lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    out = kernel(q, k, v, kept, **settings, lse=lse)
    add_means(q, k_means, v_means, kept, out, lse, keys=order.tokens, **settings)
    return out, kept


def _order_and_choose(
    q: Tensor, k: Tensor, keys: Tensor, order: TokenOrder, method: Method, call: Call
) -> tuple[Tensor, Tensor, KeptBlocks]:
    """Keys in order, the means of their blocks, and the kept blocks."""
    from rainfusion_core.kernels.arrange import arranged_means, arranged_with_means

    assert method.scores_of_means is not None
    q_means = arranged_means(q, order.gather, order.block_size)
    k, k_means = arranged_with_means(k, keys, order.block_size, call.key_lengths)
    return k, k_means, keep(method.scores_of_means(q_means, k_means, call), order, call)


def extra_bytes(
    batch: int, heads: int, key_heads: int, tokens: int, head_dim: int, itemsize: int,
    block_size: int = 128, corrected: bool = False,
) -> int:  # fmt: skip
    """The most memory that `attention` holds on top of its arguments, its output included.

    Keys and values in order and the output; then, for each pair of blocks, a float32 score, which
    is gone when the kernel runs, and an int32 place in the index. What belongs to single blocks
    (their means, counts and the order in which they start) is small, and counted. The correction
    adds a float32 for every query and head.
    """
    blocks = -(-tokens // block_size)
    rows = batch * heads * blocks
    ordered = 2 * batch * key_heads * tokens * head_dim * itemsize
    means = 4 * (rows + batch * key_heads * blocks) * head_dim
    # the means of queries once more with the scale in them, those of keys once for every head
    scored = means + 8 * rows * head_dim + 4 * rows * blocks
    selecting = ordered // 2 + max(scored, means + 8 * rows * blocks) + 4 * rows
    out = batch * heads * tokens * head_dim * itemsize
    # a count and a length, and while rows are sorted their numbers and the order in which they start
    attending = ordered + out + 4 * rows * blocks + 36 * rows
    if corrected:
        # means of keys and values, and both once more in the dtype of the queries; marks of pairs
        means = 2 * batch * key_heads * blocks * head_dim * (4 + itemsize)
        attending += means + rows * blocks + 4 * batch * heads * tokens
    return max(selecting, attending)
