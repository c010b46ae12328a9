from dataclasses import replace

import pytest
import torch

from rainfusion_core.errors import ConfigError, KernelUnavailable, ModelUnavailable
from rainfusion_core.loading.options import Classes, LoadOptions
from rainfusion_core.loading.positions import InterpolatedRotary
from rainfusion_core.pipeline import (
    ModelSource,
    check,
    choose_device,
    choose_dtype,
    is_available,
    load,
)
from tests import pipelines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("wan")
    pipelines.wan().save_pretrained(path)
    return path


def test_a_saved_pipeline_renders_the_same(folder):
    loaded = load(ModelSource(location=str(folder)))
    assert type(loaded).__name__ == "WanPipeline"
    assert torch.equal(pipelines.run(loaded), pipelines.run(pipelines.wan()))


def test_components_have_the_dtypes_asked_for(folder):
    source = ModelSource(
        location=str(folder), dtype="bfloat16", component_dtypes={"vae": "float32"}, flow_shift=5.0
    )
    loaded = load(source)
    assert loaded.transformer.dtype == torch.bfloat16 and loaded.vae.dtype == torch.float32
    assert loaded.scheduler.config.flow_shift == 5.0


def test_positions_are_interpolated_beyond_the_trained_grid_in_every_transformer(tmp_path):
    pipelines.wan(two_stages=True).save_pretrained(tmp_path)
    source = ModelSource(location=str(tmp_path))
    plain, whole, half = (  # a render of 17 frames of 64x96 is a grid of 5 x 4 x 6
        pipelines.run(load(replace(source, trained_grid=grid)))
        for grid in (None, (5, 4, 6), (5, 2, 3))
    )
    assert torch.equal(whole, plain) and not torch.allclose(half, plain)
    stages = load(replace(source, trained_grid=(5, 4, 6)))
    assert type(stages.transformer_2.rope) is type(stages.transformer.rope) is InterpolatedRotary


def test_a_scheduler_replaces_the_repositorys_and_keeps_its_settings(folder):
    changes = {"shift": 3.0, "shift_terminal": 0.0}
    source = ModelSource(
        location=str(folder), scheduler=("FlowMatchEulerDiscreteScheduler", changes)
    )
    scheduler = load(source).scheduler
    assert type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert scheduler.config.shift == 3.0 and scheduler.config.num_train_timesteps == 1000


def test_the_transformer_of_a_task_is_loaded_from_its_own_folder(tmp_path):
    pipelines.wan().save_pretrained(tmp_path)
    other = pipelines.wan_transformer(in_channels=36)
    other.save_pretrained(tmp_path / "transformer-image")
    source = ModelSource(
        location=str(tmp_path), transformer="transformer-image", dtype="bfloat16",
        classes=Classes(pipeline="WanImageToVideoPipeline"),
    )  # fmt: skip
    loaded = load(source)
    assert type(loaded).__name__ == "WanImageToVideoPipeline"
    weight = loaded.transformer.patch_embedding.weight
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, other.patch_embedding.weight.bfloat16())
    quantized = replace(source, options=LoadOptions(quantize="int8"))
    with pytest.raises(ConfigError, match="--quantize"):
        check(quantized)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"has no model_index\.json"):
        load(ModelSource(location=str(tmp_path)))


def test_missing_weights_name_the_command_that_fetches_them(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = ModelSource(location="nobody/nothing", fetch="hf download nobody/nothing")
    assert not is_available(source)
    with pytest.raises(ModelUnavailable) as caught:
        load(source)
    assert str(caught.value) == (
        "the weights of nobody/nothing are not in the cache and HF_HUB_OFFLINE is set"
    )
    assert "hf download nobody/nothing" in caught.value.hint
    assert "--model shapes needs no download" in caught.value.hint


@pytest.mark.parametrize("device", ["tpu", "gpu"])
def test_unknown_devices_are_refused(device):
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or mps"):
        choose_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test lacks")
def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(KernelUnavailable, match="this machine has no cuda device"):
        choose_device("cuda")


def test_dtype_is_what_is_asked_or_what_the_device_multiplies():
    assert choose_dtype("float16", "bfloat16", "cpu") == "float16"
    assert choose_dtype("auto", "bfloat16", "cuda") == "bfloat16"
    assert choose_dtype("auto", "bfloat16", "cpu") in ("bfloat16", "float32")
    with pytest.raises(ConfigError, match="dtype must be auto, float32, bfloat16, float16"):
        choose_dtype("int8", "bfloat16", "cpu")
