"""The shipped presets: each is consistent, and says of its model what the model is."""

import pytest

from rainfusion_core.pipeline import DTYPES
from rainfusion_core.random_weights import parameter_count, transformer_class
from rf_cli import presets
from rf_cli.presets.schema import Dtype

SHIPPED = sorted(path.stem for path in presets.FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_transformer_table_describes_the_model(name):
    preset = presets.load(name)
    counted = parameter_count(preset.transformer.class_name, preset.transformer.config)
    assert counted == pytest.approx(preset.parameters, rel=0.01)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_pipeline_is_one_of_diffusers(name):
    for pipeline in presets.load(name).tasks.values():
        assert transformer_class(pipeline).__name__ == pipeline


def test_every_name_and_alias_means_one_model():
    known = presets.all_presets()
    spoken = [word for preset in known for word in (preset.name, *preset.aliases)]
    assert len(spoken) == len(set(spoken))


def test_dtypes_are_those_of_the_core():
    from typing import get_args

    assert set(get_args(Dtype)) == set(DTYPES)


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
