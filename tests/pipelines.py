"""Tiny random diffusers pipelines, built in memory: they prove plumbing and exactness, never quality."""

import torch

WORDS = ["a", "red", "circle", "moving", "right", "over", "blue", "background"]


def tokenizer():
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -1.0) for word in WORDS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def text_encoder(**changes):
    from transformers import UMT5Config, UMT5EncoderModel

    settings = dict(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4,
        is_encoder_decoder=False, use_cache=False, decoder_start_token_id=0,
    )  # fmt: skip
    return UMT5EncoderModel(UMT5Config(**settings | changes)).eval()


def wan_transformer(layers: int = 3, **changes):
    from diffusers import WanTransformer3DModel

    settings = dict(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=16,
        out_channels=16, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=layers,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
    )  # fmt: skip
    return WanTransformer3DModel(**settings | changes).eval()


def wan_parts() -> tuple:
    """Tokenizer, text encoder, VAE and scheduler of Wan."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler

    vae = AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return tokenizer(), text_encoder(), vae.eval(), scheduler


def wan(*, two_stages: bool = False, expand_timesteps: bool = False):
    """A WanPipeline: Wan 2.1, Wan 2.2 with two transformers, or Wan 2.2 5B with a timestep a token."""
    from diffusers import WanPipeline

    torch.manual_seed(0)
    pipeline = WanPipeline(
        *wan_parts(), wan_transformer(),
        transformer_2=wan_transformer() if two_stages else None,
        boundary_ratio=0.875 if two_stages else None, expand_timesteps=expand_timesteps,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image_parts():
    """Image encoder of Wan 2.1 and its processor: five tokens an image."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=4, patch_size=2,
    )  # fmt: skip
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 4}, crop_size={"height": 4, "width": 4}
    )
    return processor, CLIPVisionModel(config).eval()


def vace():
    """A WanVACEPipeline: two of its three layers have a block for the control video beside them."""
    from diffusers import WanVACEPipeline, WanVACETransformer3DModel

    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, text_dim=32, freq_dim=32, ffn_dim=64,
        num_layers=3, rope_max_seq_len=64, vace_layers=[0, 2], vace_in_channels=96,
    ).eval()  # fmt: skip
    for bias in transformer.vace_patch_embedding.parameters():
        torch.nn.init.normal_(bias, std=0.1)
    pipeline = WanVACEPipeline(*wan_parts(), transformer=transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def cogvideox(**changes):
    """A CogVideoXPipeline: text and video in one sequence, both guidance branches in one batch."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    settings = dict(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        time_embed_dim=2, text_embed_dim=32, num_layers=2, sample_width=10, sample_height=6,
        sample_frames=17, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )  # fmt: skip
    encoder = T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4,
        is_encoder_decoder=False, use_cache=False, decoder_start_token_id=0,
    )  # fmt: skip
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    pipeline = CogVideoXPipeline(
        tokenizer(), T5EncoderModel(encoder).eval(), vae.eval(),
        CogVideoXTransformer3DModel(**settings | changes).eval(), CogVideoXDDIMScheduler(),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline, **changes) -> torch.Tensor:
    """(frames, 3, height, width) in [0, 1]; 17 frames of 64x96: a grid of 5 x 4 x 6."""
    settings = dict(
        prompt="a red circle", negative_prompt="blue", height=64, width=96, num_frames=17,
        num_inference_steps=3, guidance_scale=5.0, max_sequence_length=16, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return pipeline(**settings | changes).frames[0]
