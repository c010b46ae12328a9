"""Model adapters: where a transformer keeps its self-attention and how its tokens are laid out."""

from rainfusion_core.adapters.base import MadeUp, ModelAdapter
from rainfusion_core.registry import Registry

__all__ = ["ADAPTERS", "MadeUp", "ModelAdapter"]

ADAPTERS: Registry[ModelAdapter] = Registry(
    "transformer class",
    {
        "AllegroTransformer3DModel": "rainfusion_core.adapters.allegro:ALLEGRO",
        "CogVideoXTransformer3DModel": "rainfusion_core.adapters.cogvideox:COGVIDEOX",
        "CosmosTransformer3DModel": "rainfusion_core.adapters.cosmos:COSMOS",
        "Flux2Transformer2DModel": "rainfusion_core.adapters.flux:FLUX",
        "FluxTransformer2DModel": "rainfusion_core.adapters.flux:FLUX",
        "HunyuanVideo15Transformer3DModel": "rainfusion_core.adapters.hunyuan_video15:HUNYUAN_VIDEO15",
        "HunyuanVideoTransformer3DModel": "rainfusion_core.adapters.hunyuan_video:HUNYUAN_VIDEO",
        "Kandinsky5Transformer3DModel": "rainfusion_core.adapters.kandinsky5:KANDINSKY5",
        "LTX2VideoTransformer3DModel": "rainfusion_core.adapters.ltx:LTX",
        "LTXVideoTransformer3DModel": "rainfusion_core.adapters.ltx:LTX",
        "MochiTransformer3DModel": "rainfusion_core.adapters.mochi:MOCHI",
        "QwenImageTransformer2DModel": "rainfusion_core.adapters.qwen_image:QWEN_IMAGE",
        "SkyReelsV2Transformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanAnimateTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanTransformer3DModel": "rainfusion_core.adapters.wan:WAN",
        "WanVACETransformer3DModel": "rainfusion_core.adapters.wan:WAN",
    },
)
