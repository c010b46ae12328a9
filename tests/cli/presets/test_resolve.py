import json

import pytest

from rainfusion_core.errors import ModelUnavailable
from rf_cli import presets


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
