"""The parts of the `shapes` pipeline, untrained, and how they become a folder."""

from pathlib import Path

import torch

from rainfusion_core.shapes import world

TEXT_TOKENS = 32  # longest prompt; the preset passes it as max_sequence_length
TEXT_WIDTH = 96
TRAINED_GRID = (9, 16, 16)  # 33 frames of 128x128 in tokens; the preset says so too
IMAGE_FOLDER = "transformer-image"  # weights of image-to-video, beside those of text-to-video


def build_tokenizer():
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -1.0) for word in world.words()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_TOKENS)


def build_text_encoder(vocabulary: int):
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary, d_model=TEXT_WIDTH, d_kv=24, d_ff=256, num_layers=3, num_heads=4,
        dropout_rate=0.0, is_encoder_decoder=False, use_cache=False, decoder_start_token_id=0,
    )  # fmt: skip
    return UMT5EncoderModel(config).eval()


def build_vae():
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=24, decoder_base_dim=24, z_dim=16, dim_mult=[1, 2, 2], num_res_blocks=1,
        temperal_downsample=[True, True], is_residual=True, in_channels=12, out_channels=12,
        patch_size=2, scale_factor_temporal=4, scale_factor_spatial=8,
        latents_mean=[0.0] * 16, latents_std=[1.0] * 16,
    )  # fmt: skip


def build_transformer():
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=3, attention_head_dim=64, in_channels=16,
        out_channels=16, text_dim=TEXT_WIDTH, freq_dim=128, ffn_dim=576, num_layers=6,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
    )  # fmt: skip


def with_image(transformer):
    """A copy that takes the channels of a given first image as well, and ignores them so far."""
    from diffusers import WanTransformer3DModel

    given = WanTransformer3DModel(**{**transformer.config, "in_channels": 16 + 4 + 16})
    state = transformer.state_dict()
    weight = torch.zeros_like(given.patch_embedding.weight)
    weight[:, :16] = state["patch_embedding.weight"]
    given.load_state_dict({**state, "patch_embedding.weight": weight})
    return given


def write_pipeline(
    folder: Path, tokenizer, encoder, vae, transformer, transformer_image, statistics: dict
) -> None:
    from diffusers import UniPCMultistepScheduler, WanPipeline

    vae.register_to_config(
        latents_mean=[round(x, 5) for x in statistics["mean"].tolist()],
        latents_std=[round(x, 5) for x in statistics["std"].tolist()],
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline = WanPipeline(tokenizer, encoder, vae, scheduler, transformer)
    pipeline.text_encoder.half()
    pipeline.vae.half()
    pipeline.transformer.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    transformer_image.half().save_pretrained(folder / IMAGE_FOLDER, safe_serialization=True)
