from functools import partial

import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests import image_pipelines
from tests.core.adapters.contract import SMALL, Case, ConditionedContract

IMAGE, REFERENCE = LatentGrid(1, 15, 19), LatentGrid(1, 9, 13)


def run(pipeline, **changes):
    settings = dict(prompt="a red circle", height=60, width=76, max_sequence_length=11)
    return image_pipelines.run(pipeline, **settings | changes)


def guided(pipeline):
    return run(pipeline, negative_prompt="blue", true_cfg_scale=3.0)


def kontext(pipeline, seed=None):
    reference = image_pipelines.picture(52, 36, seed)
    return run(pipeline, image=reference, _auto_resize=False, max_area=60 * 76)


def case(run, *grids, kind="FluxPipeline", branches=("cond",), others=(), **changes):
    return Case(
        make=lambda: image_pipelines.flux(kind, **changes),
        run=run,
        layout=TokenLayout((Text(11), *grids)),
        layers=4,
        branches=branches,
        axes=(1,),
        others={name: partial(run, **{name: 7}) for name in others},
    )


CASES = {
    "dev": case(run, IMAGE),
    "schnell-guided": case(guided, IMAGE, branches=("cond", "uncond"), guidance_embeds=False),
    "kontext": case(kontext, IMAGE, REFERENCE, kind="FluxKontextPipeline", others=["seed"]),
}


class TestContract(ConditionedContract):
    cases = CASES


def with_ip_adapter():
    """A transformer whose double-stream blocks also attend to an image, and its forward pass."""
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

    torch.manual_seed(0)
    transformer = image_pipelines.flux_transformer()
    for block in transformer.transformer_blocks:
        block.attn.set_processor(FluxIPAdapterAttnProcessor(32, 24))
    adapter = {"ip_hidden_states": [torch.randn(1, 4, 24)]}  # single-stream blocks ignore it
    arguments = dict(
        hidden_states=torch.randn(1, 285, 16), timestep=torch.tensor([0.5]),
        guidance=torch.tensor([3.5]), pooled_projections=torch.randn(1, 16),
        encoder_hidden_states=image_pipelines.text(11), txt_ids=torch.zeros(11, 3),
        img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(15.0), torch.arange(19.0)),
    )  # fmt: skip

    @torch.no_grad()
    def forward():
        return transformer(**arguments, joint_attention_kwargs=dict(adapter)).sample

    return transformer, forward


def test_attention_of_an_ip_adapter_runs_dense_and_is_counted():
    transformer, forward = with_ip_adapter()
    dense = forward()
    weights = list(transformer.state_dict())
    config = SparseConfig(**{**SMALL, "sparsity": 1e-6, "strict": False})
    with install(transformer, config) as handle:
        kept = forward()
        report = handle.report()
        assert list(transformer.state_dict()) == weights
    assert report.dense_reasons() == {"queries and keys differ in number": 2}
    assert len(report.sparse_rows) == 4
    torch.testing.assert_close(kept, dense, atol=1e-5, rtol=0)
    assert torch.equal(forward(), dense)
