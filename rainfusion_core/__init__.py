"""RainFusion2.0 block-sparse attention for video diffusion transformers, training-free, on any device."""

from typing import TYPE_CHECKING, Any

from rainfusion_core.errors import RainfusionError

if TYPE_CHECKING:
    from rainfusion_core.attention import sparse_attention
    from rainfusion_core.blocks import KeptBlocks
    from rainfusion_core.config import SparseConfig
    from rainfusion_core.installation import Handle, install
    from rainfusion_core.layout import LatentGrid, Text, TokenLayout

__all__ = [
    "Handle",
    "KeptBlocks",
    "LatentGrid",
    "RainfusionError",
    "SparseConfig",
    "Text",
    "TokenLayout",
    "install",
    "sparse_attention",
]

_HOMES = {
    "Handle": "installation",
    "KeptBlocks": "blocks",
    "LatentGrid": "layout",
    "SparseConfig": "config",
    "Text": "layout",
    "TokenLayout": "layout",
    "install": "installation",
    "sparse_attention": "attention",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `rf --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
