"""Exact dense attention by name: what dense steps run, and what every speed-up is measured against."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from rainfusion_core.blocks import KeptBlocks, dense_blocks
from rainfusion_core.errors import KernelUnavailable, UnknownName
from rainfusion_core.kernels import c_blocks, choose_kernel, unavailable_reason
from rainfusion_core.kernels.cpu_blocks import multiplies_bfloat16, multiplies_tiles

Dense = Callable[..., Tensor]
DENSE_BLOCK = 128  # what `blocks` cuts the tokens into


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """Whatever torch picks for itself."""
    return scaled_dot_product_attention(q, k, v, scale=scale)


def _with_backend(backend: SDPBackend) -> Dense:
    def dense(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, scale=scale)

    return dense


def _blocks(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """The block kernel of this machine with every block kept."""
    size = DENSE_BLOCK
    batch, heads, tokens, _ = q.shape
    kept = dense_blocks(batch, heads, -(-tokens // size), block_size=size, device=q.device)
    if k.shape[-2] < tokens:  # the padding was cut off
        key_blocks = -(-k.shape[-2] // size)
        kept = KeptBlocks(
            kept.index[..., :key_blocks].contiguous(),
            kept.count.clamp(max=key_blocks),
            key_blocks,
            size,
        )
    _, kernel = choose_kernel("auto", q.device, q.dtype, q.shape[-1], size)
    return kernel(q, k, v, kept, scale=scale)


DENSE_KERNELS: dict[str, Dense] = {
    "sdpa": _sdpa,
    "sdpa-flash": _with_backend(SDPBackend.FLASH_ATTENTION),
    "sdpa-cudnn": _with_backend(SDPBackend.CUDNN_ATTENTION),
    "sdpa-efficient": _with_backend(SDPBackend.EFFICIENT_ATTENTION),
    "blocks": _blocks,
}


def available_dense(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Names of the dense kernels that can run such a call on this machine."""
    if device.type != "cuda":
        return ["sdpa", "blocks"]
    halves = ["sdpa-flash", "sdpa-cudnn"] if dtype in (torch.float16, torch.bfloat16) else []
    return ["sdpa", *halves, "sdpa-efficient"]


def choose_dense(name: str, q: Tensor, k: Tensor, v: Tensor) -> str:
    """The dense kernel called `name`; for "auto" the one known to be fastest for such a call.

    A rule instead of a race at run time: the same seed must give the same video, and two exact
    kernels differ in rounding. benchmarks/kernels.py checks the rule.
    """
    if name == "auto":
        return _fastest(q.device, q.dtype, q.shape[-1])
    if name not in DENSE_KERNELS:
        raise UnknownName("dense kernel", name, DENSE_KERNELS)
    available = available_dense(q.device, q.dtype)
    if name not in available:
        raise KernelUnavailable(
            f"dense kernel {name} cannot run on {q.device.type} in {q.dtype}",
            hint=f"these can: auto, {', '.join(available)}",
        )
    return name


def _fastest(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    if device.type == "cpu":
        if dtype == torch.float32:
            # the C kernel is faster than torch's attention, torch-blocks is not
            no_c = unavailable_reason("c-blocks", device, dtype, head_dim)
            return "blocks" if no_c is None else "sdpa"
        # torch multiplies float16 on a CPU several times slower than float32, which blocks uses,
        # and bfloat16 with AMX several times as fast as blocks that do without
        torch_alone = multiplies_tiles() and not c_blocks.by_tiles(dtype, head_dim, DENSE_BLOCK)
        native = dtype == torch.bfloat16 and multiplies_bfloat16() and not torch_alone
        return "blocks" if native or dtype == torch.float16 else "sdpa"
    hopper = (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device)[0] >= 9
    )
    # cuDNN has a kernel made for Hopper and later; torch's flash kernel is made for Ampere
    return "sdpa-cudnn" if hopper and "sdpa-cudnn" in available_dense(device, dtype) else "sdpa"
