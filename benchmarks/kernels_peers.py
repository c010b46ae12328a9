"""Other people's attention, where it is installed; each is an arm, or the reason why it is none.

FlexAttention and torch's own kernels are part of rainfusion_core and need no place here.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_mask

Arm = Callable[[], Tensor]
Peer = Callable[[Tensor, Tensor, Tensor, KeptBlocks, float], Arm | str]


def _absent(module: str, q: Tensor) -> str | None:
    if find_spec(module) is None:
        return f"{module} is not installed"
    return None if q.device.type == "cuda" else f"{module} needs a GPU"


def flash_attn(module: str) -> Peer:
    """Dense; version 2 and version 3, which is for Hopper, are modules of their own."""

    def peer(q: Tensor, k: Tensor, v: Tensor, kept: KeptBlocks, sparsity: float) -> Arm | str:
        if (reason := _absent(module, q)) is not None:
            return reason
        attention = import_module(module).flash_attn_func
        heads_last = [x.transpose(1, 2).contiguous() for x in (q, k, v)]

        def run() -> Tensor:
            out = attention(*heads_last)
            # early releases of version 3 give the log-sum-exp too
            return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)

        return run

    return peer


def flashinfer(q: Tensor, k: Tensor, v: Tensor, kept: KeptBlocks, sparsity: float) -> Arm | str:
    """Block-sparse, with a mask for each head; its plan is made before the clock starts."""
    if (reason := _absent("flashinfer", q)) is not None:
        return reason
    if not sparsity or len(q) != 1 or q.shape[1] != k.shape[1]:
        return "flashinfer is asked for sparse calls of one batch item whose heads share no keys"
    module, size, heads = import_module("flashinfer"), kept.block_size, q.shape[1]
    sizes = torch.full((heads, kept.key_blocks), size, dtype=torch.int32, device=q.device)
    sizes[:, -1] = q.shape[-2] - size * (kept.key_blocks - 1)
    room = torch.empty(2**28, dtype=torch.uint8, device=q.device)
    wrapper = module.VariableBlockSparseAttentionWrapper(room)
    wrapper.plan(
        kept_mask(kept)[0], sizes, sizes, num_qo_heads=heads, num_kv_heads=heads,
        head_dim=q.shape[-1], q_data_type=q.dtype,
    )  # fmt: skip
    return lambda: wrapper.run(q[0], k[0], v[0])[None]


# those called "dense ..." count as dense kernels everywhere
PEERS: dict[str, Peer] = {
    "dense flash-attn": flash_attn("flash_attn"),
    "dense flash-attn 3": flash_attn("flash_attn_interface"),
    "flashinfer": flashinfer,
}
