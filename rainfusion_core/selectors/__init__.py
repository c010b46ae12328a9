"""Selectors: from queries and keys to `KeptBlocks`. One file each, one line here."""

from rainfusion_core.registry import Registry
from rainfusion_core.selectors.base import Selector

__all__ = ["SELECTORS", "Selector"]

SELECTORS: Registry[Selector] = Registry(
    "selector",
    {
        "rainfusion2": "rainfusion_core.selectors.rainfusion2:select",
    },
)
