import pytest
import torch

from rainfusion_core import SparseConfig, install, session
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests.core.adapters.contract import SMALL, AdapterContract, Case

GRID, TEXT = LatentGrid(5, 3, 5), 40


def hunyuan_video(**changes):
    """A HunyuanVideoPipeline that is given its text embeddings and returns latents."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )

    settings = dict(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        num_single_layers=2, num_refiner_layers=1, patch_size=2, patch_size_t=1,
        guidance_embeds=True, text_embed_dim=32, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    transformer = HunyuanVideoTransformer3DModel(**settings | changes).eval()
    pipeline = HunyuanVideoPipeline(
        None, None, transformer, None, FlowMatchEulerDiscreteScheduler(shift=7.0), None, None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text(*valid: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, pooled embeddings and mask of prompts with so many tokens each."""
    generator = torch.Generator().manual_seed(sum(valid))
    embeds = torch.randn(len(valid), TEXT, 32, generator=generator)
    pooled = torch.randn(len(valid), 8, generator=generator)
    mask = torch.arange(TEXT) < torch.tensor(valid)[:, None]
    return embeds, pooled, mask.long()


def run(pipeline, prompts=(21, 33), negative=(5, 40), **changes):
    positive, against = text(*prompts), text(*negative)
    settings = dict(
        prompt_embeds=positive[0], pooled_prompt_embeds=positive[1],
        prompt_attention_mask=positive[2], negative_prompt_embeds=against[0],
        negative_pooled_prompt_embeds=against[1], negative_prompt_attention_mask=against[2],
        height=48, width=80, num_frames=17, num_inference_steps=2, true_cfg_scale=4.0,
        generator=torch.Generator().manual_seed(0), output_type="latent",
    )  # fmt: skip
    return pipeline(**settings | changes).frames


def hunyuan_case(**changes):
    return Case(
        make=lambda: hunyuan_video(**changes),
        run=run,
        layout=TokenLayout((GRID, Text(TEXT))),
        layers=4,
        padded={"cond": (19, 7), "uncond": (35, 0)},
    )


CASES = {
    "text-to-video": hunyuan_case(),
    "token-replace": hunyuan_case(image_condition_type="token_replace"),
}


class TestContract(AdapterContract):
    cases = CASES


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    return hunyuan_video()


@pytest.mark.parametrize("dense_kernel", ["sdpa", "blocks"])
def test_a_dense_call_leaves_the_padding_out_instead_of_masking_it(pipeline, dense_kernel):
    one_prompt = dict(prompts=(21,), negative=(40,))
    dense = run(pipeline, **one_prompt)
    config = SparseConfig(**{**SMALL, "sparsity": 0, "dense_kernel": dense_kernel})
    with install(pipeline, config) as handle:
        ours = run(pipeline, **one_prompt)
        # a call with a mask would have to go to torch, whatever was asked for
        assert handle.report().dense_kernel == dense_kernel
    torch.testing.assert_close(ours, dense, atol=1e-5, rtol=0)


def test_prompts_of_different_length_run_dense_with_their_mask(pipeline):
    dense = run(pipeline)
    with install(pipeline, SparseConfig(**{**SMALL, "sparsity": 0})) as handle:
        ours = run(pipeline)
        assert handle.report().dense_kernel == ""
    torch.testing.assert_close(ours, dense, atol=1e-5, rtol=0)


def test_the_mask_of_a_forward_pass_is_read_once(pipeline, monkeypatch):
    read = []
    original = session.key_lengths_of
    monkeypatch.setattr(
        session, "key_lengths_of", lambda *a, **b: (read.append(1), original(*a, **b))[1]
    )
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        run(pipeline)
        assert len(handle.report().rows) == 4 * len(read) == 4 * 2 * 2
