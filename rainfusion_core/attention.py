"""RainFusion2.0 attention: order the tokens, select key blocks, attend to those, put the tokens back.

Source: RainFusion2.0, arXiv 2512.24086, section 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rainfusion_core import fused
from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import c_blocks, choose_kernel
from rainfusion_core.kernels.correction import corrected
from rainfusion_core.layout import TokenLayout
from rainfusion_core.order import TokenOrder
from rainfusion_core.selection.pooling import ordered_block_means
from rainfusion_core.selectors import SELECTORS, Call, Memory, Method

# they take tokens from where they lie, and put the output there
KERNELS_THAT_REORDER = ("c-blocks", "torch-blocks")


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: TokenLayout,
    config: SparseConfig,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    memory: Memory | None = None,
) -> tuple[Tensor, KeptBlocks]:
    """Self-attention over the blocks that matter, in the model's own token order.

    Args:
        q, k, v: (batch, heads, tokens, head_dim), after rotary embedding.
        layout: what the tokens are.
        config: the schedule apart, everything in it is used.
        scale: factor on the logits; None means head_dim ** -0.5.
        key_lengths: (batch,) int, tokens that are not padding, counted in the order with the text
            last; None means all.
        memory: of this layer and guidance branch, for methods that carry something from step to
            step; None means that this is the first step.

    Returns:
        (batch, heads, tokens, head_dim) in the dtype of `q`, and the blocks it was computed from.
    """
    method = SELECTORS[config.method]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    call = Call(layout, method.complete(config), scale, key_lengths, memory or Memory())
    order = method.ordered(q, k, call)
    name, kernel = choose_kernel(config.kernel, q.device, q.dtype, q.shape[-1], order.block_size)
    if fused.can_fuse(method, call, name, q.device):
        return fused.attention(q, k, v, order, method, call, kernel)
    if config.correction != "none":
        kernel = corrected(name, kernel)
    if name in KERNELS_THAT_REORDER:
        kept = choose(q, k, order, method, call, name)
        return attend(q, k, v, kept, order, call, kernel), kept
    q, k, v = order.permute(q), order.permute_keys(k), order.permute_keys(v)
    kept = method.select(q, k, order, call)
    out = kernel(q, k, v, kept, scale=scale, key_lengths=key_lengths)
    del q, k, v  # their room is for the output in the model's order
    return order.unpermute(out), kept


def choose(
    q: Tensor, k: Tensor, order: TokenOrder, method: Method, call: Call, kernel: str
) -> KeptBlocks:
    """The blocks that the method keeps for `kernel`, from queries and keys in the model's order.

    They are moved only for methods that look at more than the means of blocks.
    """
    if order.gather.ndim > 1 or order.keys is not None or not method.by_means(call.config):
        return method.select(order.permute(q), order.permute_keys(k), order, call)
    means = c_blocks.ordered_block_means if kernel == "c-blocks" else ordered_block_means
    with torch.no_grad():
        q_means = means(q, order.gather, order.block_size)
        k_means = means(k, order.gather, order.block_size, call.key_lengths)
    return fused.choose(q_means, k_means, order, method, call)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    order: TokenOrder,
    call: Call,
    kernel: Callable[..., Tensor],
) -> Tensor:
    """One of `KERNELS_THAT_REORDER`, on tokens in the model's order."""
    keys = order.gather if order.keys is None else order.keys
    settings = {"scale": call.scale, "key_lengths": call.key_lengths}
    return kernel(q, k, v, kept, **settings, rows=order.gather, key_rows=keys)
