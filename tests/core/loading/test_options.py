import accelerate
import pytest
import torch

from rainfusion_core import install, pipeline
from rainfusion_core.errors import ConfigError, UnknownName
from rainfusion_core.loading import options
from rainfusion_core.loading.options import Classes, LoadOptions, compile_blocks, prepare
from tests import pipelines
from tests.core import loaded

WAN = Classes(
    pipeline="WanPipeline",
    transformer="WanTransformer3DModel",
    vae="AutoencoderKLWan",
    scheduler="UniPCMultistepScheduler",
    scheduler_config={"use_flow_sigmas": True},
    components=frozenset({"transformer", "vae"}),
)
OFFLOAD = accelerate.cpu_offload


@pytest.mark.parametrize("family", loaded.FAMILIES)
@pytest.mark.parametrize("offload", ["model", "group"])
def test_offloaded_weights_give_the_same_latents_and_all_calls_are_sparse(family, offload):
    made = loaded.FAMILIES[family]()
    # the function that `load` ends with; a check before it refuses the cpu
    moved = loaded.rendered(prepare(made, LoadOptions(offload=offload), "cpu"))
    assert torch.equal(moved.latents, loaded.plain(family).latents)
    assert len(moved.report.sparse_rows) == len(loaded.plain(family).report.rows) > 0


@pytest.mark.parametrize("family", loaded.FAMILIES)
def test_sequentially_offloaded_weights_give_the_same_latents(family, monkeypatch):
    # diffusers names the device cpu:0, where accelerate takes parameters for plain tensors
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda model, device, **how: OFFLOAD(model, "cpu", **how)
    )
    moved = prepare(loaded.FAMILIES[family](), LoadOptions(offload="sequential"), "cpu")
    assert {each.device.type for each in moved.transformer.parameters()} == {"meta"}
    outcome = loaded.rendered(moved)
    assert {each.device.type for each in moved.transformer.parameters()} == {"meta"}
    assert torch.equal(outcome.latents, loaded.plain(family).latents)
    assert len(outcome.report.sparse_rows) == len(loaded.plain(family).report.rows) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_sequential_offload_to_a_gpu_gives_the_same_latents():
    moved = prepare(pipelines.wan(), LoadOptions(offload="sequential"), "cuda")
    stayed = prepare(pipelines.wan(), LoadOptions(), "cuda")
    assert loaded.distance(loaded.rendered(moved), loaded.rendered(stayed)) < 1e-4


@pytest.mark.parametrize(("family", "tolerance"), [("wan", 0.02), ("cogvideox", 0.5)])
def test_fp8_storage_holds_8_bits_and_stays_near(family, tolerance):
    stored = pipeline.load(loaded.source(family, fp8_storage=True))
    dtypes = {parameter.dtype for parameter in stored.transformer.parameters()}
    assert torch.float8_e4m3fn in dtypes
    outcome = loaded.rendered(stored)
    assert 0 < loaded.distance(outcome, loaded.plain(family)) < tolerance
    assert len(outcome.report.sparse_rows) == len(loaded.plain(family).report.rows)


def test_the_decoder_works_in_tiles():
    tiled = pipeline.load(loaded.source("wan", vae_tiling=True))
    assert tiled.vae.use_tiling
    tiled.vae.enable_tiling(48, 48, 32, 32)
    settings = dict(num_inference_steps=1, num_frames=5)
    whole = pipelines.run(pipeline.load(loaded.source("wan")), **settings)
    with install(tiled, loaded.SPARSE) as handle:
        frames = pipelines.run(tiled, **settings)
        assert len(handle.report().sparse_rows) == 2 * 3
    # a random decoder sees other neighbours at the seams
    assert 0 < (frames - whole).abs().max() < 0.5


@pytest.mark.parametrize("family", loaded.FAMILIES)
def test_compiled_blocks_share_one_graph_through_all_renders(family):
    torch._dynamo.reset()
    compiled = loaded.FAMILIES[family](**({"num_layers": 4} if family == "cogvideox" else {}))
    plain = loaded.rendered(compiled)
    compile_blocks(compiled.transformer, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    first, second = loaded.rendered(compiled), loaded.rendered(compiled)
    counters = torch._dynamo.utils.counters
    # of CogVideoX, the first block is given hidden states with other strides
    graphs = {"wan": 1, "cogvideox": 2}[family]
    assert counters["stats"]["unique_graphs"] == graphs and not counters["graph_break"]
    assert torch.equal(first.latents, second.latents)
    assert loaded.distance(first, plain) < 1e-4
    assert len(first.report.sparse_rows) == len(plain.report.rows)


def test_options_work_together():
    together = pipeline.load(
        loaded.source("wan", fp8_storage=True, vae_tiling=True, cache="pab", scheduler="euler")
    )
    outcome = loaded.rendered(together)
    alone = loaded.rendered(pipeline.load(loaded.source("wan", scheduler="euler")))
    assert 0 < loaded.distance(outcome, alone) < 0.05
    assert outcome.report.absent > 0 and outcome.report.sparse_rows


PAIRS = {
    "quantize-and-fp8": dict(quantize="int8", fp8_storage=True),
    "compile-and-fp8": dict(compile=True, fp8_storage=True),
    "compile-and-sequential": dict(compile=True, offload="sequential"),
    "quantize-and-group": dict(quantize="int8", offload="group"),
}


@pytest.mark.parametrize("options", PAIRS.values(), ids=PAIRS)
def test_options_that_exclude_each_other_are_refused(options):
    with pytest.raises(ConfigError, match="exclude each other"):
        LoadOptions(**options)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="no offload is called 'disk'"):
        LoadOptions(offload="disk")


def test_offload_is_refused_on_the_cpu():
    with pytest.raises(ConfigError, match="--offload model needs a GPU: on cpu"):
        options.check(LoadOptions(offload="model"), WAN, "cpu")
    options.check(LoadOptions(offload="model"), WAN, "cuda")


def test_tiles_are_refused_where_the_decoder_has_none():
    options.check(LoadOptions(vae_tiling=True), WAN, "cpu")
    other = Classes(pipeline="WanPipeline", vae="AutoencoderTiny")
    options.check(LoadOptions(vae_tiling=True), other, "cpu")
    with pytest.raises(ConfigError, match="VQModel of WanPipeline does not decode in tiles"):
        options.check(
            LoadOptions(vae_tiling=True), Classes(pipeline="WanPipeline", vae="VQModel"), "cpu"
        )


def test_classes_come_from_the_index_of_the_pipeline():
    found = pipeline.classes_of(loaded.source("cogvideox"))
    assert found.pipeline == "CogVideoXPipeline" and found.vae == "AutoencoderKLCogVideoX"
    assert found.transformer == "CogVideoXTransformer3DModel"
    assert found.scheduler == "CogVideoXDDIMScheduler" and "vae" in found.components
