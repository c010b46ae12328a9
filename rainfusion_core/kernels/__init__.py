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
        "c-blocks": "rainfusion_core.kernels.c_blocks:attention",
        "torch-blocks": "rainfusion_core.kernels.torch_blocks:attention",
        "triton-blocks": "rainfusion_core.kernels.triton_blocks:attention",
        "gluon-sm90": "rainfusion_core.kernels.gluon_sm90:attention",
        "flex": "rainfusion_core.kernels.flex:attention",
    },
)


def choose_kernel(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int = 128
) -> tuple[str, Kernel]:
    """The kernel called `name`; for "auto" the fastest one that runs here.

    Raises:
        KernelUnavailable: the kernel that was asked for cannot take such a call on this machine.
    """
    call = (device, dtype, head_dim, block_size)
    if name == "auto":
        fast = FASTEST_FIRST.get(device.type, ())
        name = next((n for n in fast if unavailable_reason(n, *call) is None), "torch-blocks")
    reason = unavailable_reason(name, *call)
    if reason is not None:
        usable = ", ".join(available_kernels(*call))
        raise KernelUnavailable(
            f"kernel {name} cannot run: {reason}", hint=f"these can: auto, {usable}"
        )
    return name, KERNELS[name]


def available_kernels(
    device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int = 128
) -> list[str]:
    """Names of the kernels that can take such a call on this machine."""
    call = (device, dtype, head_dim, block_size)
    return [name for name in KERNELS if unavailable_reason(name, *call) is None]


def unavailable_reason(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int = 128
) -> str | None:
    """Why a kernel cannot take such a call on this machine, or None if it can."""
    check = _CHECKS.get(name)
    return None if check is None else check(device, dtype, head_dim, block_size)


def _no_c(device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int) -> str | None:
    if device.type != "cpu":
        return f"it needs a CPU, the device is {device.type}"
    from rainfusion_core.kernels import c_blocks

    return c_blocks.unavailable(dtype, head_dim)


def _no_flex(
    device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int
) -> str | None:
    from rainfusion_core.kernels import flex

    if device.type == "cpu" and dtype == torch.float64:
        return f"it does not compute in {dtype}"
    return flex.unavailable(device)


def _no_triton(
    device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int
) -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type != "cuda":
        return None if _triton_interprets() else f"it needs a GPU, the device is {device.type}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0 or higher"
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it does not compute in {dtype}"
    return f"it needs a head_dim up to 256, got {head_dim}" if head_dim > 256 else None


def _no_hopper(
    device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int
) -> str | None:
    """Asked before anything is compiled: for another GPU the compiler would abort the process."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"it needs an NVIDIA GPU, the device is {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability != (9, 0):
        return "it needs compute capability 9.0, this GPU has {}.{}".format(*capability)
    if _triton_version() < (3, 6):
        return "it needs triton 3.6 or higher"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it does not compute in {dtype}"
    if head_dim not in (64, 96, 128):
        return f"it needs a head_dim of 64, 96 or 128, got {head_dim}"
    return None if block_size == 128 else f"it needs blocks of 128 tokens, got {block_size}"


def _triton_interprets() -> bool:
    try:
        from triton import knobs  # from Triton 3.4
    except ImportError:
        return False
    return bool(knobs.runtime.interpret)


def _triton_version() -> tuple[int, ...]:
    import triton

    return tuple(int(number) for number in triton.__version__.split(".")[:2])


# by type of device; what none of them takes is left to torch-blocks
FASTEST_FIRST = {"cpu": ("c-blocks",), "cuda": ("gluon-sm90", "triton-blocks")}
_CHECKS: dict[str, Callable[[torch.device, torch.dtype, int, int], str | None]] = {
    "c-blocks": _no_c,
    "flex": _no_flex,
    "triton-blocks": _no_triton,
    "gluon-sm90": _no_hopper,
}
