import copy

import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.errors import ConfigError, RainfusionError, UnknownName, UnsupportedLayout
from tests import pipelines

WAN = {
    "wan2.1": {},
    "wan2.2-two-transformers": {"two_stages": True},
    "wan2.2-timestep-per-token": {"expand_timesteps": True},
}
SMALL = {"block_size": 16, "kernel": "torch-blocks"}


@pytest.fixture(params=WAN)
def pipeline(request):
    return pipelines.wan(**WAN[request.param])


def test_keeping_every_block_equals_dense_attention(pipeline):
    dense = pipelines.run(pipeline)
    # a sparsity below one block of the row keeps all of them, through the sparse kernel
    with install(pipeline, SparseConfig(sparsity=1e-6, **SMALL)) as handle:
        sparse = pipelines.run(pipeline)
        report = handle.report()
    assert report.sparse_rows and report.achieved == 0
    torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=0)


def test_sparsity_zero_equals_an_untouched_pipeline(pipeline):
    dense = pipelines.run(pipeline)
    with install(pipeline, SparseConfig(sparsity=0, **SMALL)) as handle:
        ours = pipelines.run(pipeline)
        assert handle.report().dense_reasons() == {"sparsity 0": len(handle.report().rows)}
    torch.testing.assert_close(ours, dense, atol=1e-5, rtol=0)


def test_uninstalling_is_bit_exact(pipeline):
    before = copy.deepcopy(pipelines.run(pipeline))
    with install(pipeline, SparseConfig(sparsity=0.8, **SMALL)):
        assert not torch.equal(pipelines.run(pipeline), before)
    assert torch.equal(pipelines.run(pipeline), before)


def test_uninstalling_leaves_nothing_behind(pipeline):
    attributes = [set(x.__dict__) for x in (pipeline.scheduler, pipeline.transformer)]
    install(pipeline, SparseConfig(**SMALL)).uninstall()
    assert [set(x.__dict__) for x in (pipeline.scheduler, pipeline.transformer)] == attributes
    processors = {type(m.processor).__name__ for m in _attention(pipeline)}
    assert processors == {"WanAttnProcessor"}


def _attention(pipeline):
    return [m for m in pipeline.transformer.modules() if hasattr(m, "processor")]


def test_every_layer_step_and_branch_is_counted_once():
    pipeline = pipelines.wan()
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        pipelines.run(pipeline)
        rows = handle.report().rows
    seen = [(row.step, row.branch, row.layer) for row in rows]
    assert seen == [(s, b, n) for s in range(3) for b in ("cond", "uncond") for n in range(3)]


def test_steps_continue_over_both_transformers():
    pipeline = pipelines.wan(two_stages=True)
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        pipelines.run(pipeline, num_inference_steps=6)
        rows = handle.report().rows
    served = {
        name: {row.step for row in rows if row.transformer == name}
        for name in ("transformer", "transformer_2")
    }
    assert served["transformer"] and served["transformer_2"]
    assert max(served["transformer"]) < min(served["transformer_2"])
    assert served["transformer"] | served["transformer_2"] == set(range(6))


def test_achieved_sparsity_is_the_share_of_pairs_that_the_masks_skip():
    pipeline = pipelines.wan()
    with install(pipeline, SparseConfig(sparsity=0.8, sink=True, **SMALL)) as handle:
        pipelines.run(pipeline)
        report = handle.report()
    assert report.first_frame == (True, 2, 4)
    # 120 tokens are 8 blocks; the first frame's 24 tokens are the last: blocks 6 and 7 are pinned
    assert {row.pairs for row in report.rows} == {2 * 8 * 8}
    by_hand = 1 - sum(r.kept_pairs for r in report.rows) / sum(r.pairs for r in report.rows)
    assert report.achieved == pytest.approx(by_hand)
    # 6 free rows keep 2 to 4 of 8 blocks, 2 pinned rows keep 8
    assert 1 - (6 * 4 + 16) / 64 <= report.achieved <= 1 - (6 * 2 + 16) / 64


def test_left_to_its_rule_a_large_first_frame_is_like_any_other():
    pipeline = pipelines.wan()
    with install(pipeline, SparseConfig(sparsity=0.8, **SMALL)) as handle:
        pipelines.run(pipeline)
        report = handle.report()
    # 2 blocks of 4 that a row would keep; without them every row keeps 2 of 8
    assert report.first_frame == (False, 2, 4)
    assert report.achieved == 0.75


def test_dense_steps_and_layers_run_dense_and_say_why():
    pipeline = pipelines.wan()
    config = SparseConfig(dense_steps=1, dense_last_steps=0.3, dense_layers=(-1,), **SMALL)
    with install(pipeline, config) as handle:
        pipelines.run(pipeline, num_inference_steps=4)
        rows = handle.report().rows
    reasons = {(row.step, row.layer): row.reason for row in rows}
    sparse = {where for where, reason in reasons.items() if reason is None}
    assert sparse == {(1, 0), (1, 1)}
    assert reasons[0, 0] == reasons[3, 2] == "dense step" and reasons[1, 2] == "dense layer"


def test_a_transformer_alone_counts_steps_by_its_timesteps():
    torch.manual_seed(0)
    transformer = pipelines.wan_transformer()
    with install(transformer, SparseConfig(dense_steps=1, **SMALL)) as handle, torch.no_grad():
        for timestep in (900, 900, 500):
            transformer(
                hidden_states=torch.randn(1, 16, 3, 8, 8),
                timestep=torch.tensor([timestep]),
                encoder_hidden_states=torch.randn(1, 4, 32),
            )
        rows = handle.report().rows
    assert [row.step for row in rows[::3]] == [0, 0, 1]
    assert [row.reason for row in rows[::3]] == ["dense step", "dense step", None]


def test_a_handle_that_is_dropped_keeps_working():
    pipeline = pipelines.wan()
    dense = pipelines.run(pipeline)
    install(pipeline, SparseConfig(**SMALL))
    assert not torch.equal(pipelines.run(pipeline), dense)


def test_a_batch_of_prompts_runs_sparse():
    pipeline = pipelines.wan()
    with install(pipeline, SparseConfig(sparsity=1e-6, **SMALL)) as handle:
        video = pipelines.run(
            pipeline, prompt=["a red circle", "a blue circle"], negative_prompt=["blue", "red"]
        )
        assert {row.pairs for row in handle.report().rows} == {2 * 2 * 8 * 8}
    assert video.isfinite().all()


def test_wanting_gradients_runs_dense_and_is_counted():
    transformer = pipelines.wan_transformer()
    with install(transformer, SparseConfig(**SMALL)) as handle:
        out = transformer(
            hidden_states=torch.randn(1, 16, 3, 8, 8),
            timestep=torch.tensor([500]),
            encoder_hidden_states=torch.randn(1, 4, 32),
        ).sample
        out.sum().backward()
        assert handle.report().dense_reasons() == {"gradients are wanted": 3}


def test_strict_turns_a_fallback_into_an_error():
    transformer = pipelines.wan_transformer()
    inputs = dict(
        hidden_states=torch.randn(1, 16, 3, 8, 8),
        timestep=torch.tensor([500]),
        encoder_hidden_states=torch.randn(1, 4, 32),
    )
    refused = pytest.raises(UnsupportedLayout, match="gradients are wanted")
    with install(transformer, SparseConfig(strict=True, **SMALL)), refused:
        transformer(**inputs)


def test_replaced_processors_are_noticed():
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    pipeline = pipelines.wan()
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        handle.verify()
        pipeline.transformer.blocks[1].attn1.processor = WanAttnProcessor()
        with pytest.raises(RainfusionError, match=r"1 layers .* transformer.blocks.1.attn1"):
            handle.verify()


def test_installing_twice_is_refused():
    pipeline = pipelines.wan()
    with install(pipeline), pytest.raises(ConfigError, match="installed in this model already"):
        install(pipeline)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"method": "rainfusion3"}, "method"),
        ({"order": "rasta"}, "token order"),
        ({"kernel": "cuda"}, "kernel"),
        ({"dense_kernel": "flash9"}, "dense kernel"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_changed(settings, kind):
    pipeline = pipelines.wan()
    with pytest.raises(UnknownName, match=f"no {kind} is called"):
        install(pipeline, SparseConfig(**settings))
    assert {type(m.processor).__name__ for m in _attention(pipeline)} == {"WanAttnProcessor"}


def test_a_model_without_adapter_is_refused():
    with pytest.raises(UnknownName, match="no transformer class is called 'Linear'"):
        install(torch.nn.Linear(2, 2))
