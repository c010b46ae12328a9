"""Every cache on every model that its table names: it skips calls, and the core changes nothing about that."""

import pytest
import torch

from rainfusion_core import SparseConfig, caches, install
from rainfusion_core.loading import LoadOptions, prepare
from tests import image_pipelines, ltx_pipelines, pipelines
from tests.core.adapters import test_hunyuan_video as hunyuan
from tests.core.adapters import test_qwen_image as qwen

STEPS = 8
STRONG = {"first-block": "first-block:0.9", "mag": "mag:0.9", "taylor": "taylor:2", "pab": "pab:2"}
# diffusers hands a tensor to numpy where a list of timesteps is meant
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def flux(pipeline):
    settings = dict(prompt="a red circle", height=60, width=76, max_sequence_length=11)
    return image_pipelines.run(pipeline, **settings, num_inference_steps=STEPS)


def video(pipeline):
    return pipelines.run(pipeline, num_inference_steps=STEPS, output_type="latent")


MODELS = {
    "WanTransformer3DModel": (pipelines.wan, video),
    "CogVideoXTransformer3DModel": (pipelines.cogvideox, video),
    "HunyuanVideoTransformer3DModel": (
        hunyuan.hunyuan_video, lambda p: hunyuan.run(p, num_inference_steps=STEPS),
    ),
    "LTXVideoTransformer3DModel": (
        ltx_pipelines.ltx, lambda p: ltx_pipelines.run(p, num_inference_steps=STEPS),
    ),
    "FluxTransformer2DModel": (image_pipelines.flux, flux),
    "QwenImageTransformer2DModel": (
        image_pipelines.qwen, lambda p: qwen.run(p, num_inference_steps=STEPS),
    ),
}  # fmt: skip
CASES = [(model, name) for name, cache in caches.CACHES.items() for model in cache.models]


@pytest.mark.parametrize(("model", "name"), CASES)
def test_a_cache_works_on_every_model_of_its_table(model, name):
    make, run = MODELS[model]
    torch.manual_seed(0)
    pipeline = prepare(make(), LoadOptions(cache=STRONG[name]), "cpu")
    assert type(pipeline.transformer).__name__ == model
    alone = run(pipeline)
    with install(pipeline, SparseConfig(sparsity=0, block_size=16)) as handle:
        within = run(pipeline)
        due = len(handle.report().rows)
        assert handle.report().absent > 0
    assert (alone - within).abs().max() <= 1e-4 * alone.abs().max()
    with install(pipeline, SparseConfig(sparsity=0.5, block_size=16)) as handle:
        run(pipeline)
        assert len(handle.report().sparse_rows) > 0
        if name != "first-block":  # which looks at the values
            assert len(handle.report().rows) == due
