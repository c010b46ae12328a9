"""Every cache on every model that its table names: it skips calls, and the core changes nothing about that."""

import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.loading import caches
from rainfusion_core.loading.options import LoadOptions, prepare
from tests import image_pipelines, ltx_pipelines, pipelines
from tests.core.adapters import (
    test_allegro,
    test_flux2,
    test_hunyuan_video15,
    test_kandinsky5,
    test_mochi,
    test_skyreels,
)
from tests.core.adapters import test_hunyuan_video as hunyuan
from tests.core.adapters import test_qwen_image as qwen

STEPS = 8
STRONG = {"first-block": "first-block:0.9", "mag": "mag:0.9", "taylor": "taylor:2", "pab": "pab:2"}
# diffusers hands a tensor to numpy where a list of timesteps is meant
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),  # Mochi
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning"),
]


def flux(pipeline):
    settings = dict(prompt="a red circle", height=60, width=76, max_sequence_length=11)
    return image_pipelines.run(pipeline, **settings, num_inference_steps=STEPS)


def video(pipeline):
    return pipelines.run(pipeline, num_inference_steps=STEPS, output_type="latent")


def longer(case):
    """A case of an adapter's test, with more steps than its own."""

    def run(pipeline):
        kind = type(pipeline)

        def call(self, *args, **kwargs):
            return kind.__call__(self, *args, **kwargs | {"num_inference_steps": STEPS})

        pipeline.__class__ = type(kind.__name__, (kind,), {"__call__": call})
        try:
            with torch.no_grad():
                return case.run(pipeline)
        finally:
            pipeline.__class__ = kind

    return case.make, run


MODELS = {
    "MochiTransformer3DModel": longer(test_mochi.CASES["text-to-video"]),
    "HunyuanVideo15Transformer3DModel": longer(test_hunyuan_video15.CASES["text-to-video"]),
    "SkyReelsV2Transformer3DModel": longer(test_skyreels.CASES["text-to-video"]),
    "Flux2Transformer2DModel": longer(test_flux2.CASES["dev"]),
    "AllegroTransformer3DModel": longer(test_allegro.CASES["text-to-video"]),
    "Kandinsky5Transformer3DModel": longer(test_kandinsky5.CASES["text-to-video"]),
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
    assert name != "taylor" or hasattr(pipeline.transformer, "proj_out")  # what it extrapolates
    alone = run(pipeline)
    with install(
        pipeline, SparseConfig(sparsity=0, block_size=16, kernel="torch-blocks")
    ) as handle:
        within = run(pipeline)
        due = len(handle.report().rows)
        assert handle.report().absent > 0
    assert (alone - within).abs().max() <= 1e-4 * alone.abs().max()
    with install(
        pipeline, SparseConfig(sparsity=0.5, block_size=16, kernel="torch-blocks", strict=True)
    ) as handle:
        run(pipeline)
        assert len(handle.report().sparse_rows) > 0
        if name != "first-block":  # which looks at the values
            assert len(handle.report().rows) == due
