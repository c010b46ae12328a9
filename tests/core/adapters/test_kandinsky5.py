import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests.core.adapters.contract import SMALL, AdapterContract, Case

# its norm of queries is given float32 and weighs in the dtype of the model
pytestmark = pytest.mark.filterwarnings(
    "ignore:Mismatch dtype between input and weight:UserWarning"
)


def kandinsky5(**changes):
    """A Kandinsky5T2VPipeline that is given its text embeddings and returns latents."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        Kandinsky5T2VPipeline,
        Kandinsky5Transformer3DModel,
    )

    settings = dict(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16,
        model_dim=32, ff_dim=64, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 6, 6),
        visual_cond=True,
    )  # fmt: skip
    transformer = Kandinsky5Transformer3DModel(**settings | changes).eval()
    for gate in transformer.parameters():
        if not gate.any():  # at birth every gate is shut, and attention would change nothing
            torch.nn.init.normal_(gate, std=0.1)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    pipeline = Kandinsky5T2VPipeline(transformer, None, None, None, None, None, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline, height=48, width=80):
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 1, 9, 16, generator=generator)
    pooled, negative_pooled = torch.randn(2, 1, 8, generator=generator)
    ends = torch.tensor([0, 9])
    return pipeline(
        prompt_embeds_qwen=positive, prompt_embeds_clip=pooled, prompt_cu_seqlens=ends,
        negative_prompt_embeds_qwen=negative, negative_prompt_embeds_clip=negative_pooled,
        negative_prompt_cu_seqlens=ends, height=height, width=width, num_frames=17,
        num_inference_steps=2, guidance_scale=5.0, generator=generator, output_type="latent",
    ).frames  # fmt: skip


CASES = {
    "text-to-video": Case(
        make=kandinsky5,
        run=run,
        layout=TokenLayout((LatentGrid(5, 3, 5),)),
        layers=2,
        axes=(1, 2, 3),
    )
}


class TestContract(AdapterContract):
    cases = CASES


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_a_model_that_is_sparse_already_is_left_alone_and_counted():
    from diffusers.models.attention_dispatch import AttentionBackendName

    torch.manual_seed(0)
    pipeline = kandinsky5(
        attention_type="nabla", attention_P=0.5, attention_wT=1, attention_wW=1, attention_wH=1,
        attention_add_sta=True, attention_method="topcdf",
    )  # fmt: skip
    for block in pipeline.transformer.visual_transformer_blocks:
        # not by set_attention_backend, which stays set for the whole process
        block.self_attention.processor._attention_backend = AttentionBackendName.FLEX
    size = dict(height=128, width=256)
    theirs = run(pipeline, **size)
    with install(pipeline, SparseConfig(**{**SMALL, "strict": False})) as handle:
        ours = run(pipeline, **size)
        assert handle.report().dense_reasons() == {"sparse already": 8}
    assert torch.equal(ours, theirs)
    refused = pytest.raises(UnsupportedLayout, match="sparse already")
    with install(pipeline, SparseConfig(**SMALL)), refused:
        run(pipeline, **size)
