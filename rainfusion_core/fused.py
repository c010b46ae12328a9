"""The steps of `attention.sparse_attention` on a GPU, where passes over memory are what they cost.

Keys and values are put in order, and queries and keys averaged, in one pass each. Queries are never
moved: the kernel takes them from where they lie, and puts the output there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.choice import keep
from rainfusion_core.selectors import Call, Method

KERNELS_THAT_GATHER = ("gluon-sm90", "triton-blocks")


@dataclass(frozen=True)
class Ordered:
    """One call whose keys and values are in order.

    Attributes:
        q: (batch, heads, tokens, head_dim), in the model's order.
        k, v: (batch, key_heads, tokens, head_dim).
        q_means, k_means: (batch, heads or key_heads, blocks, head_dim) float32.
        v_means: the same of the values; None where nothing is corrected.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_means: Tensor
    k_means: Tensor
    v_means: Tensor | None


def can_fuse(method: Method, call: Call, kernel: str, device: torch.device) -> bool:
    """Whether `attention` can stand in for the single steps: the method must score by means."""
    gathers = device.type == "cuda" and kernel in KERNELS_THAT_GATHER
    return gathers and method.by_means(call.config)


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
    ordered = put_in_order(q, k, v, order, call)
    kept = choose(ordered.q_means, ordered.k_means, order, method, call)
    return attend(ordered, kept, order, call, kernel), kept


def put_in_order(q: Tensor, k: Tensor, v: Tensor, order: TokenOrder, call: Call) -> Ordered:
    """Everything that is done with all tokens before the kernel."""
    from rainfusion_core.kernels.arrange import arranged, arranged_means, arranged_with_means

    size, lengths = order.block_size, call.key_lengths
    keys = order.gather if order.keys is None else order.keys
    q_means = arranged_means(q, order.gather, size)
    k, k_means = arranged_with_means(k, keys, size, lengths)
    if call.config.correction == "none":
        return Ordered(q, k, arranged(v, keys), q_means, k_means, None)
    v, v_means = arranged_with_means(v, keys, size, lengths)
    return Ordered(q, k, v, q_means, k_means, v_means)


def choose(
    q_means: Tensor, k_means: Tensor, order: TokenOrder, method: Method, call: Call
) -> KeptBlocks:
    """The blocks that the method keeps, from the means alone."""
    assert method.scores_of_means is not None
    with torch.no_grad():
        return keep(method.scores_of_means(q_means, k_means, call), order, call)


def attend(
    x: Ordered, kept: KeptBlocks, order: TokenOrder, call: Call, kernel: Callable[..., Tensor]
) -> Tensor:
    """The kernel, and the correction if there is one."""
    from rainfusion_core.kernels.triton_means import add_means

    settings: dict[str, Any] = {
        "scale": call.scale, "key_lengths": call.key_lengths, "rows": order.gather
    }  # fmt: skip
    if x.v_means is None:
        return kernel(x.q, x.k, x.v, kept, **settings)
    lse = torch.empty(x.q.shape[:-1], dtype=torch.float32, device=x.q.device)
    out = kernel(x.q, x.k, x.v, kept, **settings, lse=lse)
    add_means(x.q, x.k_means, x.v_means, kept, out, lse, keys=order.tokens, **settings)
    return out


def extra_bytes(
    batch: int, heads: int, key_heads: int, tokens: int, head_dim: int, itemsize: int,
    block_size: int = 128, corrected: bool = False,
) -> int:  # fmt: skip
    """The most memory that `attention` holds on top of its arguments, its output included.

    Keys and values in order and the output; then, for each pair of blocks, a float32 score, which
    is gone when the kernel runs, and an int32 place in the index. What belongs to single blocks
    (their means, counts and the order in which they start) is small, and counted. The correction
    adds a float32 for every query and head, and a byte for each pair of blocks.
    """
    blocks = -(-tokens // block_size)
    rows, key_rows = batch * heads * blocks, batch * key_heads * blocks
    ordered = 2 * batch * key_heads * tokens * head_dim * itemsize
    ordered += 4 * (rows + key_rows * (2 if corrected else 1)) * head_dim
    # the means of queries once more with the scale in them, those of keys once for every head
    selecting = max(8 * rows * head_dim + 4 * rows * blocks, 8 * rows * blocks) + 4 * rows
    # a count and a length, and while rows are sorted their numbers and the order in which they start
    attending = 4 * rows * blocks + 36 * rows
    attending += batch * heads * tokens * head_dim * itemsize
    if corrected:
        # the means of keys and values in the dtype of the queries; marks of pairs
        attending += 2 * key_rows * head_dim * itemsize + rows * blocks + 4 * batch * heads * tokens
    return ordered + max(selecting, attending)
