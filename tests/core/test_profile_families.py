"""Every family's forward pass can be made up and profiled: the settings of its presets, with narrow layers."""

import pytest
import torch

from rainfusion_core.adapters import ADAPTERS
from rainfusion_core.config import SparseConfig
from rainfusion_core.profile import Architecture, Workload, profile

# of diffusers, on a CPU: Mochi's autocast, and Kandinsky's norms in another dtype
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:Mismatch dtype")
CPU = torch.device("cpu")
HEADS = dict(num_attention_heads=2, attention_head_dim=24)
WAN = dict(HEADS, ffn_dim=64, text_dim=16, num_layers=2)
HUNYUAN = dict(HEADS, text_embed_dim=16, rope_axes_dim=(8, 8, 8), num_refiner_layers=1)
COG = dict(HEADS, num_layers=2, text_embed_dim=16, max_text_seq_length=20)
LTX = dict(HEADS, num_layers=2, cross_attention_dim=48, caption_channels=16, in_channels=8)
FLUX = dict(
    HEADS, num_layers=1, num_single_layers=2, joint_attention_dim=16, axes_dims_rope=(8, 8, 8)
)
COSMOS = dict(HEADS, num_layers=2, text_embed_dim=16, adaln_lora_dim=4, extra_pos_embed_type="")
CASES = {
    "wan": ("WanTransformer3DModel", WAN),
    "wan-image": ("WanTransformer3DModel", dict(WAN, image_dim=16, added_kv_proj_dim=48)),
    "wan-two-images": (
        "WanTransformer3DModel",
        dict(WAN, image_dim=16, added_kv_proj_dim=48, pos_embed_seq_len=514),
    ),
    "skyreels": ("SkyReelsV2Transformer3DModel", WAN),
    "vace": ("WanVACETransformer3DModel", dict(WAN, vace_layers=[0], vace_in_channels=8)),
    "hunyuan": (
        "HunyuanVideoTransformer3DModel",
        dict(HUNYUAN, num_layers=1, num_single_layers=2, pooled_projection_dim=8),
    ),
    "hunyuan-image": (
        "HunyuanVideoTransformer3DModel",
        dict(HUNYUAN, num_layers=1, num_single_layers=1, image_condition_type="token_replace"),
    ),
    "hunyuan-1.5": (
        "HunyuanVideo15Transformer3DModel",
        dict(HUNYUAN, num_layers=2, text_embed_2_dim=8, image_embed_dim=8, use_meanflow=True),
    ),
    "cogvideox-2b": (
        "CogVideoXTransformer3DModel",
        dict(COG, sample_width=20, sample_height=12, sample_frames=13),
    ),
    "cogvideox-5b": (
        "CogVideoXTransformer3DModel", dict(COG, use_rotary_positional_embeddings=True)
    ),
    "cogvideox-1.5-image": (
        "CogVideoXTransformer3DModel",
        dict(COG, use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False,
             ofs_embed_dim=512),
    ),
    "ltx": ("LTXVideoTransformer3DModel", LTX),
    "ltx2": (
        "LTX2VideoTransformer3DModel",
        dict(LTX, audio_in_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=12,
             audio_cross_attention_dim=24, rope_type="split"),
    ),
    "mochi": (
        "MochiTransformer3DModel",
        dict(HEADS, num_layers=2, text_embed_dim=16, pooled_projection_dim=8),
    ),
    "allegro": (
        "AllegroTransformer3DModel",
        dict(HEADS, num_layers=2, cross_attention_dim=48, caption_channels=16),
    ),
    "kandinsky": (
        "Kandinsky5Transformer3DModel",
        dict(in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16,
             model_dim=48, ff_dim=64, num_text_blocks=1, num_visual_blocks=2, axes_dims=(8, 8, 8),
             visual_cond=True, patch_size=(1, 2, 2)),
    ),
    "cosmos": (
        "CosmosTransformer3DModel",
        dict(COSMOS, in_channels=5, out_channels=4, concat_padding_mask=False),
    ),
    "qwen": (
        "QwenImageTransformer2DModel",
        dict(HEADS, num_layers=2, joint_attention_dim=16, axes_dims_rope=(8, 8, 8)),
    ),
    "flux": ("FluxTransformer2DModel", dict(FLUX, pooled_projection_dim=8, guidance_embeds=True)),
    "flux-unguided": ("FluxTransformer2DModel", dict(FLUX, pooled_projection_dim=8)),
    "flux2": ("Flux2Transformer2DModel", dict(FLUX, axes_dims_rope=(6, 6, 6, 6))),
}  # fmt: skip
TEXT = 20


def test_every_family_is_here():
    # Wan Animate wants a pose video and a face
    assert set(ADAPTERS) - {class_name for class_name, _ in CASES.values()} == {
        "WanAnimateTransformer3DModel"
    }


@pytest.mark.parametrize("name", CASES)
def test_a_pass_is_profiled_dense_and_sparse(name):
    class_name, config = CASES[name]
    model = Architecture(class_name=class_name, config=config)
    grid = (1, 9, 13) if "2DModel" in class_name else (4, 5, 7)
    work = Workload(
        architecture=model, tokens=grid[0] * grid[1] * grid[2], text_tokens=TEXT,
        dtype=torch.bfloat16,
        device=CPU, latents=tuple(a * b for a, b in zip(grid, model.patch, strict=True)),
    )  # fmt: skip
    config = SparseConfig(sparsity=0.6, block_size=16, kernel="torch-blocks")
    found = profile(work, [config], seconds=0)
    dense, sparse = found.arms
    assert found.layers_run == found.layers == model.layers
    assert dense.density == 1 > sparse.density
    assert found.layout.grids[0].tokens == work.tokens
    text = found.layout.tokens - work.tokens
    assert text == (0 if ADAPTERS[class_name].text == "none" else TEXT)
    for arm in (dense, sparse):
        assert any(part.startswith("attention") for part in arm.parts.layers)
