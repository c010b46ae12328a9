"""Every error names the file, the key and what the key may hold."""

import pytest

from rainfusion_core.errors import ConfigError
from rf_cli import presets


def refused(tmp_path, table):
    path = tmp_path / "mine.toml"
    path.write_text('base = "wan2.1-1.3b"\n' + table)
    with pytest.raises(ConfigError) as caught:
        presets.read(path)
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("[sampling]\nsteps = 0", "sampling.steps must be a whole number of at least 1, got 0"),
        ("[sampling]\nsteps = 'x'", "sampling.steps must be a whole number of at least 1, got 'x'"),
        ("[sampling]\nguidance = -1", "sampling.guidance must be a number of at least 0, got -1"),
        ("[model]\ndtype = 'int8'", "model.dtype must be one of float32, bfloat16, float16, got 'int8'"),
        (
            "[model]\ncomponent_dtypes = { vae = 'int8' }",
            "model.component_dtypes.vae must be one of float32, bfloat16, float16, got 'int8'",
        ),
        ("aliases = 3", "aliases must be a list, each text, got 3"),
        ("[video]\ntoken = [4, 0, 16]", "video.token.1 must be a whole number of at least 1, got 0"),
        (
            "[video]\nsizes = ['832*480']",
            "video.sizes.0 must be text of the form WIDTHxHEIGHT, got '832*480'",
        ),
        (
            "[video]\nframe_rule = '4n+1'",
            "video.frame_rule must be text of the form 4k+1, 4k or 1, got '4n+1'",
        ),
        (
            "[tasks]\ntext-to-sound = 'P'",
            "tasks.text-to-sound must be one of text-to-video, image-to-video, first-last-frame, "
            "video-to-video, text-to-image, edit, got 'text-to-sound'",
        ),
        ("[tasks]", "tasks: must name at least one of text-to-video, image-to-video, "
                    "first-last-frame, video-to-video, text-to-image, edit"),
        ("[sampling]\nflow_shift = 'x'", "sampling.flow_shift must be a number or a table whose "
         "keys are text of the form WIDTHxHEIGHT, got 'x'"),
        ("[sampling]\nflow_shift = { '480p' = 3 }", "sampling.flow_shift.480p must be text of the form WIDTHxHEIGHT"),
        ("[sparse]\nsparsity = 80", "sparse: sparsity must be in [0, 1), got 80"),
        ("[[loras]]\nscale = 1", "loras.0.location is missing; it must be text"),
        ("model = 3", "model must be a table, got 3"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_with_what_is_allowed(tmp_path, table, problem):
    text, _ = refused(tmp_path, table)
    assert text.startswith(f"mine.toml: {problem}") and "\n" not in text


def test_an_unknown_key_is_answered_with_the_keys_of_its_table(tmp_path):
    text, hint = refused(tmp_path, "[sampling]\nstep = 20")
    assert text.startswith("mine.toml: step is not a key of [sampling]; its keys are flow_shift, ")
    assert hint == "did you mean 'steps'?"
    text, hint = refused(tmp_path, "license = 'MIT'")
    assert text.startswith("mine.toml: license is not a key of a preset; its keys are aliases, ")
    assert hint == "did you mean 'licence'?"


def test_a_missing_key_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((presets.FOLDER / "shapes.toml").read_text().replace("steps = 20", ""))
    with pytest.raises(ConfigError) as caught:
        presets.read(path)
    assert str(caught.value) == (
        "mine.toml: sampling.steps is missing; it must be a whole number of at least 1"
    )


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("steps = = 20")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        presets.read(path)
