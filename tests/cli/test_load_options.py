import pytest

from rainfusion_core.errors import ConfigError
from rainfusion_core.loading.lora import Lora
from rf_cli import load_options, presets

SHAPES = presets.load("shapes")


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("style.safetensors", Lora("style.safetensors")),
        ("a/b.safetensors:0.8", Lora("a/b.safetensors", 0.8)),
        ("transformer_2=low.safetensors:-1", Lora("low.safetensors", -1.0, "transformer_2")),
        ("owner/name", Lora("owner/name")),
        (r"C:\loras\style.safetensors", Lora(r"C:\loras\style.safetensors")),
    ],
)
def test_lora_weights_are_a_path_a_scale_and_a_component(text, lora):
    assert load_options.read_lora(text) == lora


def test_other_scales_are_refused():
    with pytest.raises(ConfigError, match="--lora: the scale must be a number, got 'strong'"):
        load_options.read_lora("a.safetensors:strong")
    with pytest.raises(ConfigError, match="--lora is empty"):
        load_options.read_lora("")


def test_options_of_a_command_become_those_of_the_core():
    given = {"lora": ["a:0.5"], "cache": "pab:3", "offload": "group", "prompt": "not one of them"}
    options = load_options.read(SHAPES, given)
    assert (options.cache, options.offload, options.loras) == ("pab:3", "group", (Lora("a", 0.5),))
    assert load_options.read(SHAPES, {}) == load_options.read(SHAPES, {"lora": None})


def test_lora_weights_of_the_preset_come_first():
    own = presets.Lora(location="owner/fast", file="fast.safetensors", component="transformer_2")
    distilled = SHAPES.model_copy(update={"loras": [own]})
    options = load_options.read(distilled, {"lora": ["mine"]})
    assert options.loras == (
        Lora("owner/fast", 1.0, "transformer_2", "fast.safetensors"),
        Lora("mine"),
    )
    facts = load_options.settings(options)
    assert facts["loras"][0]["location"] == "owner/fast" and facts["cache"] == "none"


def test_a_preset_names_the_classes_of_its_pipeline():
    classes = load_options.classes_of(presets.load("wan2.1"), "text-to-video")
    assert classes.pipeline == "WanPipeline" and classes.transformer == "WanTransformer3DModel"
    assert {"transformer", "vae", "text_encoder"} <= classes.components
