"""Selectors: from queries and keys to `KeptBlocks`. One file each, one line here."""

from rainfusion_core.registry import Registry
from rainfusion_core.selectors.base import Call, Memory, Method

__all__ = ["SELECTORS", "Call", "Memory", "Method"]

SELECTORS: Registry[Method] = Registry(
    "selector",
    {
        "rainfusion2": "rainfusion_core.selectors.rainfusion2:METHOD",
        "rainfusion1": "rainfusion_core.selectors.rainfusion1:METHOD",
        "svg1": "rainfusion_core.selectors.svg1:METHOD",
        "svg2": "rainfusion_core.selectors.svg2:METHOD",
        "sparge": "rainfusion_core.selectors.sparge:METHOD",
        "adaspa": "rainfusion_core.selectors.adaspa:METHOD",
        "xattention": "rainfusion_core.selectors.xattention:METHOD",
        "draft": "rainfusion_core.selectors.draft:METHOD",
        "sliding-tile": "rainfusion_core.selectors.sliding_tile:METHOD",
        "radial": "rainfusion_core.selectors.radial:METHOD",
        "paro": "rainfusion_core.selectors.paro:METHOD",
        "vsa": "rainfusion_core.selectors.vsa:METHOD",
        "ada-bsa": "rainfusion_core.selectors.ada_bsa:METHOD",
        "oracle": "rainfusion_core.selectors.oracle:METHOD",
        "random": "rainfusion_core.selectors.random:METHOD",
        "local": "rainfusion_core.selectors.local:METHOD",
    },
)
