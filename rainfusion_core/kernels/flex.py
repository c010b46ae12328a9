"""Block-sparse attention through torch's FlexAttention, compiled for the shapes of the call.

A yardstick and an alternative: other people's kernel, given the same blocks. The first call of a
shape compiles for seconds on a CPU and up to a minute on a GPU.
"""

import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.errors import KernelUnavailable

CPP_COMPILERS = ("g++", "clang++", "c++")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    lse: Tensor | None = None,
) -> Tensor:
    """A `Kernel` that tells `lse` on a GPU alone.

    Raises:
        KernelUnavailable: `lse` is wanted on a CPU, where FlexAttention does not tell it.
    """
    if lse is not None and q.device.type == "cpu":
        raise KernelUnavailable(
            "FlexAttention tells no log-sum-exp on a CPU", hint="c-blocks and torch-blocks do"
        )
    mask = block_mask(kept, q.shape[-2], k.shape[-2], key_lengths)
    settings: dict[str, Any] = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    if lse is not None:
        settings["return_lse"] = True
    with torch.no_grad():
        found = _compiled()(q, k, v, block_mask=mask, **settings)
        if lse is None:
            return found
        lse.copy_(found[1])
        return found[0]


def block_mask(kept: KeptBlocks, queries: int, keys: int, key_lengths: Tensor | None) -> Any:
    """The same blocks as FlexAttention's `BlockMask`, without building a mask of tokens.

    Kept blocks are whole blocks to it, whose tokens are not looked at, unless there is padding.
    """
    from torch.nn.attention.flex_attention import BlockMask

    # on a CPU it reads the number of key blocks from the width of the index
    index = pad(kept.index, (0, kept.key_blocks - kept.index.shape[-1])).contiguous()
    count, none = kept.count, torch.zeros_like(kept.count)
    settings: dict[str, Any] = {
        "BLOCK_SIZE": (kept.block_size, kept.block_size),
        "seq_lengths": (queries, keys),
    }
    if key_lengths is None:
        return BlockMask.from_kv_blocks(none, torch.zeros_like(index), count, index, **settings)

    def real(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key < key_lengths[b]

    return BlockMask.from_kv_blocks(count, index, mask_mod=real, **settings)


def unavailable(device: torch.device) -> str | None:
    """Why FlexAttention cannot be compiled for the device; None if it can."""
    if device.type == "cuda":
        return None
    if device.type != "cpu":
        return f"it needs a CPU or a CUDA device, the device is {device.type}"
    if not any(map(shutil.which, CPP_COMPILERS)):
        return "it needs a C++ compiler"
    supported = getattr(torch.cpu, "_is_avx2_supported", lambda: False)()
    return None if supported else "it needs a CPU with AVX2"


@lru_cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)
