"""What is refused before weights load, and what the model's own files say before its preset does."""

import json

import pytest
from huggingface_hub import constants

from rainfusion_core.errors import ConfigError, ModelUnavailable
from rf_cli import presets
from rf_cli.requests import architecture_of, layers_of, source_of, sparse_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_preset_of_the_embedded_model_is_its_folder():
    preset = presets.load("shapes")
    folder = architecture_of(preset).settings()
    told = architecture_of(preset.model_copy(update={"model": presets.load("wan2.1").model}))
    assert {key: folder[key] for key in told.config} == told.config


def test_what_is_given_wins_over_the_preset():
    preset, unasked = presets.load("shapes"), {"dense_steps": None, "dense_layers": None}
    assert sparse_config(preset, **unasked, correction=None).correction == "pooled"
    assert sparse_config(preset, **unasked, correction="none").correction == "none"


@pytest.mark.parametrize(("name", "grid"), [("shapes", (9, 16, 16)), ("wan2.1", None)])
def test_the_grid_that_a_model_was_trained_on_is_its_presets(name, grid):
    source = source_of(presets.load(name), dtype="float32", device="cpu")
    assert source.trained_grid == grid


@pytest.mark.parametrize(
    ("name", "last"), [("wan2.1-14b", 39), ("hunyuanvideo", 59), ("kandinsky5-lite", 31)]
)
def test_layers_are_those_of_the_model_whatever_its_setting_is_called(name, last):
    preset = presets.load(name)
    assert layers_of(preset, f"{last},0,{last}") == [0, last]
    with pytest.raises(ConfigError) as caught:
        layers_of(preset, f"0,{last + 1}")
    problem = f"--layers names a layer outside 0 to {last}, got '0,{last + 1}'"
    assert str(caught.value) == problem


def test_layers_that_are_no_numbers_are_refused_by_the_name_of_the_option():
    with pytest.raises(ConfigError, match="--layers must list layer numbers, got 'all'"):
        layers_of(presets.load("shapes"), "all")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository without preset in the hub's cache, and no hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--somebody--tuned"
    files = folder / "snapshots" / COMMIT
    (files / "transformer").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (files / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    config = {"_class_name": "WanTransformer3DModel", "num_layers": 7}
    (files / "transformer" / "config.json").write_text(json.dumps(config))
    return "somebody/tuned"


def test_a_repository_without_preset_has_its_own_layers_not_those_of_its_family(repository):
    assert architecture_of(presets.resolve(repository)).layers == 7


def test_a_repository_without_preset_that_lacks_a_component_is_refused(repository):
    with pytest.raises(ModelUnavailable, match=f"{repository} is neither a folder, nor in"):
        architecture_of(presets.resolve(repository), "vae")
