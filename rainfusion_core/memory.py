"""How much memory a device has free, and how many layers of a transformer fit into it."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from rainfusion_core.errors import ConfigError

MARGIN = 0.9


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken, without pushing anything out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return total_bytes(device) // 2


def total_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def activation_bytes(tokens: int, width: int, ffn_dim: int, itemsize: int) -> int:
    """Estimate of what a forward pass holds at its fullest, weights apart.

    The fullest place is attention (hidden states, normed states, q, k, v, each of those in block
    order, output: 9 widths) or the MLP (3 widths and its inner width twice), with two float32
    copies for the norms.
    """
    return tokens * (itemsize * max(9 * width, 3 * width + 2 * ffn_dim) + 8 * width)


def fitting_layers(wanted: int, *, layer_bytes: int, other_bytes: int, free: int, what: str) -> int:
    """At most `wanted` layers, as many as fit.

    Args:
        other_bytes: weights outside the layers, and activations.
        free: bytes that may be used; a tenth stays free.
        what: the workload, for the error text.

    Raises:
        ConfigError: not even one layer fits.
    """
    room = int(free * MARGIN) - other_bytes
    if room < layer_bytes:
        needed = (other_bytes + layer_bytes) / MARGIN
        raise ConfigError(
            f"memory is too small for {what}: one layer needs {needed / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free",
            hint="ask for a smaller --size or fewer --frames",
        )
    return min(wanted, room // layer_bytes)


def check_room(needed: Mapping[str, int], *, free: int, where: str) -> None:
    """Refuse what does not fit.

    Args:
        needed: bytes by what takes them.

    Raises:
        ConfigError: together they are more than `free`.
    """
    if sum(needed.values()) <= free:
        return
    parts = " and ".join(f"{size / 2**30:.1f} GiB for {what}" for what, size in needed.items())
    raise ConfigError(
        f"memory is too small: {parts}, {free / 2**30:.1f} GiB are free on {where}",
        hint="try --offload or --quantize, a smaller --size, or fewer --frames",
    )
