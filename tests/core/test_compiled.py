"""The core inside blocks that torch.compile has compiled."""

import pytest
import torch
from torch._dynamo.utils import counters

from rainfusion_core import SparseConfig, install
from tests import image_pipelines, pipelines
from tests.core.adapters import test_flux, test_hunyuan_video

HUNYUAN = test_hunyuan_video.CASES["text-to-video"]


# "eager" traces, which shows breaks and recompilations; "aot_eager" also proves the ops traceable
MODELS = {
    "wan": (
        pipelines.wan,
        lambda pipeline: pipelines.run(pipeline, num_inference_steps=2),
        "eager",
    ),
    "flux-two-kinds-of-blocks": (image_pipelines.flux, test_flux.run, "aot_eager"),
    "hunyuan-video-with-masks": (HUNYUAN.make, HUNYUAN.run, "eager"),
}


@pytest.fixture(params=MODELS)
def model(request):
    make, run, backend = MODELS[request.param]
    torch.manual_seed(0)
    return make(), run, backend


@pytest.fixture(autouse=True)
def fresh_compiler():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.set_num_threads(threads)


def config(sparsity: float = 0.8):
    return SparseConfig(sparsity=sparsity, block_size=16, kernel="torch-blocks")


def graphs() -> int:
    """Graphs that were compiled since the last call."""
    return counters["stats"].pop("unique_graphs", 0)


def test_layers_share_the_graphs_that_they_share_without_the_core(model):
    pipeline, run, backend = model
    with install(pipeline, config()) as handle:
        eager = run(pipeline)
        rows = len(handle.report().rows)
    # a graph break is an error
    pipeline.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
    dense = run(pipeline)
    without = graphs()
    with install(pipeline, config()) as handle:
        compiled = run(pipeline)
        assert 0 < graphs() <= without
        handle.clear()
        again = run(pipeline)
        assert graphs() == 0 and torch.equal(again, compiled)
        assert len(handle.report().sparse_rows) == rows
    torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=0)
    assert torch.equal(run(pipeline), dense) and not torch.equal(compiled, dense)


def test_a_transformer_that_is_compiled_whole_is_not_compiled_again_for_every_step():
    torch.manual_seed(0)
    transformer = pipelines.wan_transformer(layers=1)
    latents, text = torch.randn(1, 16, 3, 8, 8), torch.randn(1, 4, 32)

    @torch.no_grad()
    def steps(model):
        with install(model, config()) as handle:
            out = [model(latents, torch.tensor([t]), text).sample for t in (900, 500, 100)]
            assert [row.step for row in handle.report().sparse_rows] == [0, 1, 2]
        return torch.stack(out)

    eager = steps(transformer)
    compiled = steps(torch.compile(transformer, fullgraph=True, backend="eager"))
    assert graphs() == 1
    torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=0)


def test_what_runs_dense_in_a_compiled_block_is_counted():
    transformer, forward = test_flux.with_ip_adapter()
    transformer.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    with install(transformer, config()) as handle:
        forward()
        report = handle.report()
    assert report.dense_reasons() == {"queries and keys differ in number": 2}
    assert len(report.sparse_rows) == 4


def test_ops_are_kept_out_of_captured_graphs():
    """A replayed graph runs no Python, so it would neither select blocks nor count."""
    ops = torch.ops.rainfusion
    for op in (
        ops.self_attention.default,
        ops.left_dense.default,
        ops.made_no_call.default,
    ):
        assert torch.Tag.cudagraph_unsafe in op.tags
