"""Layers that make no attention call: counted with the reason, and refused by strict unless it was on purpose."""

import pytest
import torch
from diffusers import LayerSkipConfig
from diffusers.hooks import apply_layer_skip
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from rainfusion_core import SparseConfig, install
from rainfusion_core.absence import LEFT_OUT, PASSED_BY, REPLACED, UNSEEN
from rainfusion_core.errors import UnsupportedLayout
from tests import image_pipelines, pipelines

SMALL = {"block_size": 16, "kernel": "torch-blocks"}


class OwnAttention(WanAttnProcessor):
    """Computes attention with its own hands, as one that calls a library of kernels would."""

    def __call__(self, attn, hidden_states, *others, **named):
        value = attn.to_v(hidden_states)
        return attn.to_out[0](value.mean(dim=1, keepdim=True).expand_as(value))


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    return pipelines.wan_transformer()


@torch.no_grad()
def forward(transformer):
    return transformer(
        hidden_states=torch.randn(1, 16, 3, 8, 8),
        timestep=torch.tensor([500]),
        encoder_hidden_states=torch.randn(1, 4, 32),
    ).sample


def replace_processor(transformer):
    transformer.blocks[1].attn1.processor = WanAttnProcessor()


def replace_attention(transformer):
    transformer.blocks[1].attn1 = pipelines.wan_transformer().blocks[1].attn1


def replace_block(transformer):
    transformer.blocks[1] = torch.nn.Identity()
    transformer.blocks[1].forward = lambda hidden_states, *others: hidden_states


def pass_the_block_by(transformer):
    transformer.blocks[1].forward = lambda hidden_states, *others: hidden_states


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace_processor, REPLACED),
        (replace_attention, REPLACED),
        (replace_block, REPLACED),
        (pass_the_block_by, PASSED_BY),
    ],
)
def test_what_changed_after_install_is_counted_and_strict_refuses_it(transformer, change, reason):
    with install(transformer, SparseConfig(**SMALL)) as handle:
        change(transformer)
        forward(transformer)
        report = handle.report()
        assert [row.layer for row in report.rows] == [0, 2]
        assert report.absent_by_reason == {reason: 1} and report.absent == 1
        forward(transformer)
        assert handle.report().absent_by_reason == {reason: 2}
        handle.clear()
        assert handle.report().absent == 0
    refused = pytest.raises(UnsupportedLayout, match=f"blocks.1.attn1 of transformer .* {reason}")
    torch.manual_seed(0)
    other = pipelines.wan_transformer()
    with install(other, SparseConfig(strict=True, **SMALL)), refused:
        change(other)
        forward(other)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_processor_with_attention_of_its_own_is_noticed(transformer, compiled):
    transformer.blocks[2].attn1.processor = OwnAttention()
    if compiled:
        torch._dynamo.reset()
        transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    with install(transformer, SparseConfig(**SMALL)) as handle:
        forward(transformer)
        assert handle.report().absent_by_reason == {UNSEEN: 1}
    refused = pytest.raises(UnsupportedLayout, match=r"blocks\.2\.attn1 .* does not look")
    with install(transformer, SparseConfig(strict=True, **SMALL)), refused:
        forward(transformer)


def test_skip_layer_guidance_is_no_error(transformer):
    with install(transformer, SparseConfig(strict=True, **SMALL)) as handle:
        apply_layer_skip(transformer, LayerSkipConfig(indices=[0, 2], fqn="blocks"))
        forward(transformer)
        report = handle.report()
    assert [row.layer for row in report.rows] == [1]
    assert report.absent_by_reason == {LEFT_OUT: 2}


@torch.no_grad()
def test_perturbed_guidance_gets_values_instead_of_attention():
    """A hook returns the values wherever torch's attention is called, which the core does not do."""
    torch.manual_seed(0)
    transformer = image_pipelines.qwen_transformer()
    latents, text = torch.randn(1, 9 * 11, 64), image_pipelines.text(9)

    def forward():
        return transformer(
            latents, text, timestep=torch.tensor([0.5]), img_shapes=[[(1, 9, 11)]]
        ).sample

    attended = forward()
    perturb = LayerSkipConfig(
        indices=[1], fqn="transformer_blocks", skip_attention=False, skip_attention_scores=True,
        skip_ff=False,
    )  # fmt: skip
    with install(transformer, SparseConfig(sparsity=1e-6, strict=True, **SMALL)) as handle:
        apply_layer_skip(transformer, perturb)
        ours = forward()
        assert handle.report().absent_by_reason == {LEFT_OUT: 1}
    theirs = forward()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (theirs - attended).abs().max() > 1e-2


def test_weights_that_are_moved_excuse_nothing(transformer):
    """Group offloading hooks the blocks too, and never runs anything else instead of them."""
    transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
    )
    refused = pytest.raises(UnsupportedLayout, match=PASSED_BY)
    with install(transformer, SparseConfig(strict=True, **SMALL)), refused:
        forward(transformer)
        pass_the_block_by(transformer)
        forward(transformer)
