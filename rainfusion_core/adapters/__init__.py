"""Model adapters: where a transformer keeps its self-attention and how its tokens are laid out."""

from rainfusion_core.adapters.base import ModelAdapter
from rainfusion_core.registry import Registry

ADAPTERS: Registry[ModelAdapter] = Registry(
    "transformer class",
    {
        "WanTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
    },
)
