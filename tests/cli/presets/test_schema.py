import pytest

from rainfusion_core.errors import ConfigError
from rf_cli import presets
from rf_cli.presets.schema import Sampling


@pytest.mark.parametrize(
    ("size", "shift"),
    [((832, 480), 3), ((480, 832), 3), ((1280, 720), 5), ((640, 352), 3), ((1024, 704), 5)],
)
def test_flow_shift_is_that_of_the_nearest_size(size, shift):
    sampling = Sampling(steps=1, guidance=1, flow_shift={"832x480": 3, "1280x720": 5})
    assert sampling.flow_shift_at(*size) == shift


@pytest.mark.parametrize("shift", [7.0, None])
def test_flow_shift_may_be_one_for_all_sizes(shift):
    assert Sampling(steps=1, guidance=1, flow_shift=shift).flow_shift_at(640, 480) == shift


def test_classifier_free_guidance_runs_two_passes_and_embedded_guidance_one():
    assert [Sampling(steps=1, guidance=1).passes(each) for each in (1, 1.5)] == [1, 2]
    assert Sampling(steps=1, guidance=6, guidance_kind="embedded").passes(6) == 1


def test_the_first_task_is_the_default():
    preset = presets.load("wan2.1")
    assert preset.pipeline == preset.pipeline_for("text-to-video") == "WanPipeline"


def test_a_task_that_the_model_does_not_do_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"shapes does not do edit; it does text-to-video"):
        presets.load("shapes").pipeline_for("edit")


def test_the_source_of_a_key_is_its_own_or_that_of_its_table():
    told = {"sampling": "model card", "sampling.steps": "paper"}
    preset = presets.load("shapes").model_copy(update={"sources": told})
    assert preset.source("sampling.steps") == "paper"
    assert preset.source("sampling.guidance") == "model card"
    assert preset.source("video.fps") == ""
