import json

import pytest

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, ModelUnavailable, UnknownName
from rainfusion_core.pipeline import DTYPES
from rainfusion_core.random_weights import parameter_count
from rf_cli import presets

SHAPES = presets.load("shapes")


@pytest.mark.parametrize("name", presets.names())
def test_shipped_preset_is_consistent(name):
    preset = presets.load(name)
    video = preset.video
    video.check(name, video.width, video.height, video.frames)
    for size in video.sizes:
        video.check(name, *map(int, size.split("x")), video.frames)
    SparseConfig(**preset.sparse.model_dump())
    assert {preset.model.dtype, *preset.model.component_dtypes.values()} <= set(DTYPES)


@pytest.mark.parametrize("name", presets.names())
def test_the_transformer_table_describes_the_model(name):
    preset = presets.load(name)
    counted = parameter_count(preset.transformer.class_name, preset.transformer.config)
    assert counted == pytest.approx(preset.parameters, rel=0.01)


def test_every_name_and_alias_means_one_model():
    known = [presets.load(name) for name in presets.names()]
    spoken = [word for preset in known for word in (preset.name, *preset.aliases)]
    assert len(spoken) == len(set(spoken))


def test_wan_is_an_alias_of_its_small_model():
    assert presets.load("wan2.1").name == "wan2.1-1.3b"


def test_misspelled_model_is_answered_with_the_nearest():
    with pytest.raises(UnknownName) as caught:
        presets.load("wan2.2-1.3b")
    assert caught.value.hint == "did you mean 'wan2.1-1.3b'?"


@pytest.mark.parametrize(
    ("name", "clip", "tokens"),
    [
        ("shapes", (128, 128, 33), 2304),
        ("shapes", (256, 256, 49), 13312),
        ("wan2.1-1.3b", (832, 480, 81), 32760),
        ("wan2.1-14b", (1280, 720, 81), 75600),
    ],
)
def test_tokens_of_a_clip(name, clip, tokens):
    assert presets.load(name).video.tokens(*clip) == tokens


def test_a_size_between_two_that_fit_is_refused_with_both():
    with pytest.raises(ConfigError) as caught:
        presets.load("wan2.1").video.check("wan2.1", 832, 476, 81)
    assert str(caught.value) == (
        "--size 832x476 does not fit wan2.1: width and height must be multiples of 16"
    )
    assert caught.value.hint == "the nearest are 832x480 and 832x464"


def test_a_size_that_is_too_large_is_refused():
    with pytest.raises(ConfigError, match="multiples of 16 up to 512") as caught:
        SHAPES.video.check("shapes", 1024, 512, 33)
    assert caught.value.hint == "the nearest are 512x512"


@pytest.mark.parametrize(("frames", "near"), [(80, "77 and 81"), (0, "1 and 5"), (-3, "1 and 5")])
def test_frames_that_do_not_fit_are_refused_with_the_nearest(frames, near):
    with pytest.raises(ConfigError, match="1 more than a multiple of 4") as caught:
        presets.load("wan2.1").video.check("wan2.1", 832, 480, frames)
    assert caught.value.hint == f"the nearest are {near}"


def test_unknown_key_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((presets.FOLDER / "shapes.toml").read_text().replace("steps = 20", "step = 20"))
    with pytest.raises(ConfigError, match=r"mine.toml: sampling.steps: field required"):
        presets.read(path)


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("steps = = 20")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        presets.read(path)


def test_a_folder_gets_the_settings_of_its_family(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    preset = presets.resolve(str(tmp_path))
    assert preset.name == preset.location == str(tmp_path)
    assert preset.sampling == presets.load("wan2.1").sampling


def test_a_hub_name_with_a_preset_is_that_preset():
    assert presets.resolve("Wan-AI/Wan2.1-T2V-14B-Diffusers").name == "wan2.1-14b"


@pytest.mark.parametrize(
    ("index", "problem"),
    [(None, "it has no model_index.json"), ({"_class_name": "FooPipeline"}, "holds a FooPipeline")],
)
def test_a_folder_that_is_no_known_pipeline_is_refused(tmp_path, index, problem):
    if index is not None:
        (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnavailable, match=problem):
        presets.resolve(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(ModelUnavailable, match=r"there is no folder \./nowhere/model"):
        presets.resolve("./nowhere/model")
