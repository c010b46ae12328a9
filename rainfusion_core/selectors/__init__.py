"""Selectors: from queries and keys to `KeptBlocks`. One file each, one line here."""

from rainfusion_core.registry import Registry
from rainfusion_core.selectors.base import Call, Memory, Method

__all__ = ["SELECTORS", "Call", "Memory", "Method"]

SELECTORS: Registry[Method] = Registry(
    "selector",
    {
        "rainfusion2": "rainfusion_core.selectors.rainfusion2:METHOD",
    },
)
