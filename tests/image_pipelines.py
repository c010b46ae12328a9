"""Tiny random pipelines of image models, built in memory: FLUX.1, FLUX.2 and Qwen-Image."""

import numpy as np
import torch

from tests import pipelines

TEXT = 32  # channels of the text embeddings


def scheduler(use_dynamic_shifting: bool = True):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=use_dynamic_shifting)


def flux_transformer(**changes):
    from diffusers import FluxTransformer2DModel

    settings = dict(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=TEXT, pooled_projection_dim=16,
        guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return FluxTransformer2DModel(**settings | changes).eval()


def image_vae(kind, blocks: int = 2):
    return kind(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks, layers_per_block=1, norm_num_groups=2, latent_channels=4,
    ).eval()  # fmt: skip


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    vocabulary = ["<|startoftext|>", "<|endoftext|>", *(f"{word}</w>" for word in pipelines.WORDS)]
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = CLIPTokenizer(vocab=numbers, merges=[], model_max_length=16)
    return CLIPTextModel(config).eval(), tokenizer


def t5():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=64, d_model=TEXT, d_kv=8, d_ff=64, num_layers=1, num_heads=4, use_cache=False,
        is_encoder_decoder=False, decoder_start_token_id=0,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def flux(kind: str = "FluxPipeline", vae_blocks: int = 2, **changes):
    """A complete pipeline of FLUX.1, or one with the same parts; one token is 4x4 pixels, 16x16 with four blocks."""
    import diffusers

    torch.manual_seed(0)
    encoder, tokenizer = clip()
    vae = image_vae(diffusers.AutoencoderKL, vae_blocks)
    vae.register_to_config(shift_factor=0.1)
    return quiet(
        getattr(diffusers, kind)(
            scheduler=scheduler(), vae=vae, text_encoder=encoder, tokenizer=tokenizer,
            text_encoder_2=t5(), tokenizer_2=pipelines.tokenizer(),
            transformer=flux_transformer(**changes),
        )
    )  # fmt: skip


def flux2_transformer(**changes):
    from diffusers import Flux2Transformer2DModel

    settings = dict(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=TEXT, timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )  # fmt: skip
    return Flux2Transformer2DModel(**settings | changes).eval()


def flux2(kind: str = "Flux2Pipeline", **changes):
    """A FLUX.2 pipeline for given `prompt_embeds`; one token is 4x4 pixels."""
    import diffusers

    torch.manual_seed(0)
    return quiet(
        getattr(diffusers, kind)(
            scheduler=scheduler(), vae=image_vae(diffusers.AutoencoderKLFlux2),
            text_encoder=None, tokenizer=None, transformer=flux2_transformer(**changes),
        )
    )  # fmt: skip


def qwen_transformer(**changes):
    from diffusers import QwenImageTransformer2DModel

    settings = dict(
        in_channels=64, out_channels=16, num_layers=3, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=TEXT, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return QwenImageTransformer2DModel(**settings | changes).eval()


def qwen(kind: str = "QwenImagePipeline", **changes):
    """A Qwen-Image pipeline for given `prompt_embeds`; one token is 16x16 pixels."""
    import diffusers

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1
    )
    processor = {"processor": None} if "Edit" in kind else {}
    return quiet(
        getattr(diffusers, kind)(
            scheduler=scheduler(), vae=vae.eval(), text_encoder=None, tokenizer=None,
            transformer=qwen_transformer(**changes), **processor,
        )
    )  # fmt: skip


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text(tokens: int, prompts: int = 1) -> torch.Tensor:
    """(prompts, tokens, TEXT) random text embeddings."""
    generator = torch.Generator().manual_seed(tokens)
    return torch.randn(prompts, tokens, TEXT, generator=generator)


def picture(width: int, height: int, seed: int | None = None):
    from PIL import Image

    pixels = np.random.default_rng(width if seed is None else seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    return Image.fromarray(pixels)


def run(pipeline, **changes) -> torch.Tensor:
    """Latents of an image, or pixels in [0, 1] if `output_type` is "pt", after two steps."""
    settings = dict(
        num_inference_steps=2, output_type="latent", generator=torch.Generator().manual_seed(0)
    )
    return pipeline(**settings | changes).images
