"""Model adapters: where a transformer keeps its self-attention and how its tokens are laid out."""

from rainfusion_core.adapters.base import ModelAdapter
from rainfusion_core.registry import Registry

ADAPTERS: Registry[ModelAdapter] = Registry(
    "transformer class",
    {
        "AllegroTransformer3DModel": "rainfusion_core.adapters.allegro:ALLEGRO",
        "CogVideoXTransformer3DModel": "rainfusion_core.adapters.cogvideox:COGVIDEOX",
        "CosmosTransformer3DModel": "rainfusion_core.adapters.cosmos:COSMOS",
        "HunyuanVideo15Transformer3DModel": "rainfusion_core.adapters.hunyuan_video15:HUNYUAN_VIDEO15",
        "HunyuanVideoTransformer3DModel": "rainfusion_core.adapters.hunyuan_video:HUNYUAN_VIDEO",
        "Kandinsky5Transformer3DModel": "rainfusion_core.adapters.kandinsky5:KANDINSKY5",
        "MochiTransformer3DModel": "rainfusion_core.adapters.mochi:MOCHI",
        "SkyReelsV2Transformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanAnimateTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanVACETransformer3DModel": "rainfusion_core.adapters.wan:WAN",
    },
)
