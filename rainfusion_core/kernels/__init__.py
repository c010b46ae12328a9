"""Kernels: attention over `KeptBlocks`. `reference` is the definition, the others must agree."""

from collections.abc import Callable
from importlib.util import find_spec

import torch

from rainfusion_core.errors import KernelUnavailable
from rainfusion_core.kernels.base import Kernel
from rainfusion_core.registry import Registry

KERNELS: Registry[Kernel] = Registry(
    "kernel",
    {
        "reference": "rainfusion_core.kernels.reference:attention",
        "torch-blocks": "rainfusion_core.kernels.torch_blocks:attention",
        "triton-blocks": "rainfusion_core.kernels.triton_blocks:attention",
    },
)


def choose_kernel(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> tuple[str, Kernel]:
    """The kernel called `name`; for "auto" the fastest one that runs here.

    Raises:
        KernelUnavailable: the kernel that was asked for cannot take such a call on this machine.
    """
    if name == "auto":
        fast = unavailable_reason("triton-blocks", device, dtype, head_dim) is None
        name = "triton-blocks" if fast and device.type == "cuda" else "torch-blocks"
    reason = unavailable_reason(name, device, dtype, head_dim)
    if reason is not None:
        usable = ", ".join(available_kernels(device, dtype, head_dim))
        raise KernelUnavailable(
            f"kernel {name} cannot run: {reason}", hint=f"these can: auto, {usable}"
        )
    return name, KERNELS[name]


def available_kernels(device: torch.device, dtype: torch.dtype, head_dim: int) -> list[str]:
    """Names of the kernels that can take such a call on this machine."""
    return [n for n in KERNELS if unavailable_reason(n, device, dtype, head_dim) is None]


def unavailable_reason(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> str | None:
    """Why a kernel cannot take such a call on this machine, or None if it can."""
    check = _CHECKS.get(name)
    return None if check is None else check(device, dtype, head_dim)


def _no_triton(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type != "cuda":
        return None if _triton_interprets() else f"it needs a GPU, the device is {device.type}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0 or higher"
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it does not compute in {dtype}"
    return f"it needs a head_dim up to 256, got {head_dim}" if head_dim > 256 else None


def _triton_interprets() -> bool:
    try:
        from triton import knobs  # from Triton 3.4
    except ImportError:
        return False
    return bool(knobs.runtime.interpret)


_CHECKS: dict[str, Callable[[torch.device, torch.dtype, int], str | None]] = {
    "triton-blocks": _no_triton,
}
