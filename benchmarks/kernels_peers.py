"""Other people's attention, where it is installed; each is an arm, or the reason why it is none.

FlexAttention and torch's own kernels are part of rainfusion_core and need no place here.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.kernels.reference import token_mask

Arm = Callable[[], Tensor]


def _absent(module: str, q: Tensor) -> str | None:
    if find_spec(module) is None:
        return f"{module} is not installed"
    return None if q.device.type == "cuda" else f"{module} needs a GPU"


def flash_attn(q: Tensor, k: Tensor, v: Tensor, kept: KeptBlocks, sparsity: float) -> Arm | str:
    """Dense."""
    if (reason := _absent("flash_attn", q)) is not None:
        return reason
    from flash_attn import flash_attn_func

    heads_last = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
    return lambda: flash_attn_func(*heads_last).transpose(1, 2)


def flashinfer(q: Tensor, k: Tensor, v: Tensor, kept: KeptBlocks, sparsity: float) -> Arm | str:
    """Block-sparse, with a mask for each head; its plan is made before the clock starts."""
    if (reason := _absent("flashinfer", q)) is not None:
        return reason
    if not sparsity or len(q) != 1:
        return "flashinfer's block-sparse kernel is for sparse calls of one batch item"
    import flashinfer

    size, tokens = kept.block_size, q.shape[-2]
    mask = token_mask(kept, kept.count.shape[-1] * size, kept.key_blocks * size)[
        0, :, ::size, ::size
    ]
    sizes = torch.full((q.shape[1], kept.key_blocks), size, dtype=torch.int32, device=q.device)
    sizes[:, -1] = tokens - size * (kept.key_blocks - 1)
    room = torch.empty(2**28, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.sparse.VariableBlockSparseAttentionWrapper(room)
    wrapper.plan(
        mask, sizes, sizes, num_qo_heads=q.shape[1], num_kv_heads=k.shape[1],
        head_dim=q.shape[-1], q_data_type=q.dtype,
    )  # fmt: skip
    return lambda: wrapper.run(q[0], k[0], v[0])[None]


PEERS = {"flash-attn (dense)": flash_attn, "flashinfer block-sparse": flashinfer}
