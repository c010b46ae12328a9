"""Model adapters: where a transformer keeps its self-attention and how its tokens are laid out."""

from rainfusion_core.adapters.base import ModelAdapter
from rainfusion_core.registry import Registry

ADAPTERS: Registry[ModelAdapter] = Registry(
    "transformer class",
    {
        "CogVideoXTransformer3DModel": "rainfusion_core.adapters.cogvideox:COGVIDEOX",
        "HunyuanVideoTransformer3DModel": "rainfusion_core.adapters.hunyuan_video:HUNYUAN_VIDEO",
        "SkyReelsV2Transformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanAnimateTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanVACETransformer3DModel": "rainfusion_core.adapters.wan:WAN",
    },
)
