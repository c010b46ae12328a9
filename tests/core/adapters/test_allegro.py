import torch

from rainfusion_core.layout import LatentGrid, TokenLayout
from tests.core.adapters.contract import AdapterContract, Case


def allegro():
    """An AllegroPipeline that is given its text embeddings and returns latents."""
    from diffusers import AllegroPipeline, AllegroTransformer3DModel, DDIMScheduler

    transformer = AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4, num_layers=2,
        cross_attention_dim=48, sample_height=6, sample_width=10, sample_frames=5,
        caption_channels=16,
    )  # fmt: skip
    pipeline = AllegroPipeline(None, None, None, transformer.eval(), DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline):
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 1, 12, 16, generator=generator)
    return pipeline(
        prompt_embeds=positive, prompt_attention_mask=torch.arange(12)[None] < 7,
        negative_prompt=None, negative_prompt_embeds=negative,
        negative_prompt_attention_mask=torch.arange(12)[None] < 3,
        height=48, width=80, num_frames=20, num_inference_steps=2, guidance_scale=7.5,
        generator=generator, output_type="latent",
    ).frames  # fmt: skip


CASES = {
    "text-to-video": Case(
        make=allegro,
        run=run,
        layout=TokenLayout((LatentGrid(5, 3, 5),)),
        layers=2,
        branches=("cond",),  # the pipeline names no branch: one batch holds both
    )
}


class TestContract(AdapterContract):
    cases = CASES
