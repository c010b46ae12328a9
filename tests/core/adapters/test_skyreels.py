"""SkyReels-V2 has the blocks of Wan; diffusion forcing gives every frame a timestep of its own."""

import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests import pipelines
from tests.core.adapters.contract import SMALL, AdapterContract, Case

VIDEO = TokenLayout((LatentGrid(5, 3, 5),))  # 17 frames of 48x80
CAUSAL = "the mask differs between video tokens"


def skyreels(pipeline_class="SkyReelsV2Pipeline"):
    import diffusers

    tokenizer, text_encoder, vae, scheduler = pipelines.wan_parts()
    transformer = diffusers.SkyReelsV2Transformer3DModel(
        num_attention_heads=2, attention_head_dim=16, text_dim=32, freq_dim=32, ffn_dim=64,
        num_layers=3, rope_max_seq_len=64,
    ).eval()  # fmt: skip
    pipeline = getattr(diffusers, pipeline_class)(
        tokenizer, text_encoder, transformer=transformer, vae=vae, scheduler=scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def diffusion_forcing():
    return skyreels("SkyReelsV2DiffusionForcingPipeline")


def run(pipeline, **changes):
    settings = dict(height=48, width=80, output_type="latent")
    return pipelines.run(pipeline, **settings | changes)


CASES = {
    "text-to-video": Case(make=skyreels, run=run, layout=VIDEO, layers=3),
    "diffusion-forcing": Case(make=diffusion_forcing, run=run, layout=VIDEO, layers=3),
}


class TestContract(AdapterContract):
    cases = CASES


def test_asynchronous_frames_are_counted_as_steps_of_their_own():
    torch.manual_seed(0)
    pipeline = diffusion_forcing()
    asynchronous = dict(num_inference_steps=4, ar_step=2, causal_block_size=1)
    dense = run(pipeline, **asynchronous)
    with install(pipeline, SparseConfig(sparsity=1e-6, dense_last_steps=1, **SMALL)) as handle:
        sparse = run(pipeline, **asynchronous)
        rows = handle.report().rows
    steps = pipeline._num_timesteps
    assert steps > 4 and {row.step for row in rows} == set(range(steps))
    assert {row.step for row in rows if row.reason} == {steps - 1}
    torch.testing.assert_close(sparse, dense, atol=1e-5 * dense.abs().max().item(), rtol=0)


def test_a_block_causal_mask_runs_dense_and_is_counted():
    torch.manual_seed(0)
    pipeline = diffusion_forcing()
    causal = dict(num_frames=21, num_inference_steps=2, ar_step=1, causal_block_size=2)
    dense = run(pipeline, **causal)
    settings = {**SMALL, "strict": False}
    with install(pipeline, SparseConfig(**settings)) as handle:
        ours = run(pipeline, **causal)
        report = handle.report()
    assert report.dense_reasons() == {CAUSAL: len(report.rows)}
    torch.testing.assert_close(ours, dense, atol=1e-5 * dense.abs().max().item(), rtol=0)
    with install(pipeline, SparseConfig(**SMALL)), pytest.raises(UnsupportedLayout, match=CAUSAL):
        run(pipeline, **causal)
