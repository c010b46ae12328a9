"""Capturing real calls of a tiny pipeline, and packing them without loss."""

from dataclasses import replace

import pytest
import torch

from rainfusion_core.attention import sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.recording import CapturedCall, Recorder
from rainfusion_core.render import Clip, render
from rainfusion_core.study.capture import capture, pack, read_facts, unpack
from tests import pipelines

CLIP = Clip(
    prompt="a red circle", width=96, height=64, frames=17, steps=3, guidance=5.0, seed=0,
    extra={"max_sequence_length": 16},
)  # fmt: skip


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.wan()


@pytest.fixture(scope="module")
def calls(pipeline):
    return capture(pipeline, CLIP, layers=[0, 2], steps=[1])


def test_only_the_wanted_layers_and_steps_of_one_branch_are_kept(calls):
    assert [(call.layer, call.step, call.branch) for call in calls] == [
        (0, 1, "cond"), (2, 1, "cond"),
    ]  # fmt: skip
    assert all(call.layout == TokenLayout((LatentGrid(5, 4, 6),)) for call in calls)
    assert all(call.q.shape == (1, 2, 120, 16) for call in calls)


def test_capturing_stops_the_render_and_leaves_the_pipeline_usable(pipeline, monkeypatch):
    counted = []
    forward = pipeline.transformer.forward
    monkeypatch.setattr(
        pipeline.transformer,
        "forward",
        lambda *args, **kwargs: (counted.append(1), forward(*args, **kwargs))[1],
    )
    capture(pipeline, CLIP, layers=[0], steps=[0])
    # both branches of the first step, and the pass in which the second one is noticed
    assert len(counted) == 3
    assert pipelines.run(pipeline).isfinite().all()


def test_a_recorder_changes_no_pixel_and_sees_every_branch_if_asked(pipeline):
    recorder = Recorder(layers=[1], branch=None)
    config = SparseConfig(sparsity=0.5, block_size=16)
    seen = render(pipeline, CLIP, config, measure_speed=False, recorder=recorder)
    plain = render(pipeline, CLIP, config, measure_speed=False)
    assert (seen.frames == plain.frames).all()
    assert [(c.step, c.branch) for c in recorder.calls] == [
        (step, branch) for step in range(3) for branch in ("cond", "uncond")
    ]


def test_a_copy_does_not_follow_the_model_memory():
    q = torch.zeros(1, 1, 4, 2)
    recorder = Recorder()
    recorder.see(CapturedCall(q, q, q, TokenLayout((Text(4),)), 1.0, 0, "cond", "t", 0))
    q += 1
    assert recorder.calls[0].q.sum() == 0


def test_nothing_captured_is_one_clear_line(pipeline):
    with pytest.raises(ConfigError, match="no call of layers 0 to the last in steps 7"):
        capture(pipeline, CLIP, steps=[7])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_packing_loses_nothing(tmp_path, dtype):
    q, k, v = (torch.randn(2, 3, 29, 8).to(dtype) for _ in range(3))
    layout = TokenLayout((Text(5), LatentGrid(2, 3, 4)))
    call = CapturedCall(q, k, v, layout, 0.3, 4, "cond", "transformer", 1, torch.tensor([29, 26]))
    facts = {"model": "é", "seed": 3}
    path = tmp_path / "calls.safetensors"
    other = replace(call, q=k.clone(), k=v.clone(), v=q.clone(), key_lengths=None, layer=2)
    path.write_bytes(pack([call, other], facts))
    first, second = unpack(path)
    assert read_facts(path) == facts
    for name in ("q", "k", "v", "key_lengths"):
        assert torch.equal(getattr(first, name), getattr(call, name))
    assert first.q.dtype == dtype and second.key_lengths is None
    same = ("layout", "scale", "step", "branch", "transformer")
    assert all(getattr(first, name) == getattr(call, name) for name in same)
    assert (first.layer, second.layer) == (1, 2)


def test_a_captured_call_can_be_computed_again(calls):
    call = calls[0]
    out, kept = sparse_attention(
        call.q, call.k, call.v, call.layout, SparseConfig(sparsity=0, block_size=16), scale=call.scale
    )  # fmt: skip
    dense = torch.nn.functional.scaled_dot_product_attention(
        call.q, call.k, call.v, scale=call.scale
    )
    assert kept.density == 1
    torch.testing.assert_close(out, dense)
