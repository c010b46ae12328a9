import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests.core.adapters.contract import SMALL, AdapterContract, Case

GRID = LatentGrid(5, 3, 5)

# Mochi's rotary embedding asks for autocast to float32, which a CPU does not have
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")


def mochi():
    """A MochiPipeline that is given its text embeddings and returns latents."""
    from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    transformer = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        pooled_projection_dim=16, in_channels=4, text_embed_dim=16, time_embed_dim=4,
        max_sequence_length=24,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipeline = MochiPipeline(scheduler, None, None, None, transformer.eval())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline, valid=11, negative_valid=11):
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 1, 24, 16, generator=generator)
    places = torch.arange(24)[None]
    return pipeline(
        prompt_embeds=positive, prompt_attention_mask=places < valid,
        negative_prompt_embeds=negative, negative_prompt_attention_mask=places < negative_valid,
        height=48, width=80, num_frames=25, num_inference_steps=2, guidance_scale=4.5,
        generator=generator, output_type="latent",
    ).frames  # fmt: skip


CASES = {
    "text-to-video": Case(
        make=mochi,
        run=run,
        layout=TokenLayout((GRID, Text(11))),  # of 24, the padding is dropped before the call
        layers=2,
        branches=("cond_uncond",),
        calls=2,
    )
}


class TestContract(AdapterContract):
    cases = CASES


def test_prompts_of_different_length_each_have_their_own_layout():
    torch.manual_seed(0)
    pipeline = mochi()
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        run(pipeline, valid=20, negative_valid=3)
        rows = handle.report().rows
    heads, tokens = 2, (GRID.tokens + 3, GRID.tokens + 20)  # the negative prompt comes first
    assert [row.pairs for row in rows[:2]] == [heads * (-(-n // 16)) ** 2 for n in tokens]


def test_the_two_branches_of_a_batch_have_memories_of_their_own():
    torch.manual_seed(0)
    pipeline = mochi()
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        run(pipeline)
        layers, calls = 2, 2
        assert len(handle.session._memories) == layers * calls
