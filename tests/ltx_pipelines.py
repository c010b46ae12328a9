"""Tiny random pipelines of LTX-Video and LTX-2, built in memory."""

import torch

from tests import pipelines
from tests.image_pipelines import TEXT, quiet, scheduler, t5


def ltx_transformer(**changes):
    from diffusers import LTXVideoTransformer3DModel

    settings = dict(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, num_layers=3, caption_channels=TEXT,
    )  # fmt: skip
    return LTXVideoTransformer3DModel(**settings | changes).eval()


def ltx(kind: str = "LTXPipeline"):
    """One token is 4 frames of 16x16 pixels."""
    import diffusers

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=4, patch_size_t=1,
    )  # fmt: skip
    return quiet(
        getattr(diffusers, kind)(
            scheduler=scheduler("Condition" not in kind), vae=vae.eval(), text_encoder=t5(),
            tokenizer=pipelines.tokenizer(), transformer=ltx_transformer(),
        )
    )  # fmt: skip


def ltx2_transformer(**changes):
    from diffusers import LTX2VideoTransformer3DModel

    settings = dict(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, audio_in_channels=4, audio_out_channels=4,
        audio_num_attention_heads=2, audio_attention_head_dim=8, audio_cross_attention_dim=16,
        num_layers=3, caption_channels=TEXT, perturbed_attn=True,
    )  # fmt: skip
    return LTX2VideoTransformer3DModel(**settings | changes).eval()


def ltx2():
    """For given `prompt_embeds` or, slower, for prompts; a frame of sound is 4 samples."""
    from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2Pipeline
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    torch.manual_seed(0)
    connectors = LTX2TextConnectors(
        caption_channels=TEXT, text_proj_in_factor=2, rope_type="split",
        **{f"{stream}_connector_{name}": value for stream in ("video", "audio") for name, value in
           dict(num_attention_heads=2, attention_head_dim=16, num_layers=1,
                num_learnable_registers=None).items()},
    )  # fmt: skip
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1,), num_res_blocks=1, latent_channels=2, mel_bins=8
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(8,), decoder_block_out_channels=(8,),
        layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,), decoder_inject_noise=(False, False),
        downsample_type=("spatial",), upsample_residual=(False,), upsample_factor=(1,),
    )  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=16, hidden_channels=8, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1]],
    )  # fmt: skip
    return quiet(
        LTX2Pipeline(
            scheduler=scheduler(), vae=vae.eval(), audio_vae=audio_vae.eval(), text_encoder=t5(),
            tokenizer=pipelines.tokenizer(), connectors=connectors.eval(), vocoder=vocoder.eval(),
            transformer=ltx2_transformer(),
        )
    )  # fmt: skip


def run_ltx2(pipeline, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 8, 5, 4, 12) video latents and audio latents of 9 frames of 32x96, after two steps."""
    texts = torch.randn(2, 9, 2 * TEXT, generator=torch.Generator().manual_seed(0)).split(1)
    settings = dict(
        prompt_embeds=texts[0], prompt_attention_mask=torch.ones(1, 9),
        negative_prompt_embeds=texts[1], negative_prompt_attention_mask=torch.ones(1, 9),
        height=32, width=96, num_frames=9, num_inference_steps=2, output_type="latent",
        generator=torch.Generator().manual_seed(0), use_cross_timestep=False, return_dict=False,
    )  # fmt: skip
    return pipeline(**settings | changes)


def run(pipeline, **changes) -> torch.Tensor:
    """Latents of 17 frames of 96x160, a grid of 5 x 6 x 10, after two steps."""
    settings = dict(
        prompt="a red circle", negative_prompt="blue", height=96, width=160, num_frames=17,
        num_inference_steps=2, guidance_scale=3.0, max_sequence_length=16, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return pipeline(**settings | changes).frames
