import json

import pytest
from typer.testing import CliRunner

from rf_cli import presets
from rf_cli.app import app


def rf(*args: str):
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})


@pytest.fixture
def folder(config_home):
    path = config_home / "rf" / "presets"
    path.mkdir(parents=True)
    return path


def test_every_preset_is_listed_and_the_embedded_one_is_here():
    lines = rf("models").stdout.splitlines()
    for name in presets.names():
        assert any(name in line for line in lines)
    assert next(line for line in lines if "shapes" in line).split()[-1] == "yes"


def test_the_list_says_what_a_model_does_and_how_many_transformers_it_has():
    lines = rf("models").stdout.splitlines()
    line = next(line for line in lines if "wan2.2-t2v (wan2.2)" in line)
    assert "t2v" in line and "2x14.3B" in line
    assert "t2i edit" in next(line for line in lines if "flux2 " in line)


def test_the_list_fits_a_small_terminal():
    lines = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert not any("…" in line for line in lines) and len(lines) < len(presets.names()) + 8


def test_a_users_preset_is_listed_and_a_broken_one_named(folder):
    (folder / "mine.toml").write_text('base = "shapes"\n')
    (folder / "broken.toml").write_text('base = "shapes"\n[sampling]\nsteps = 0\n')
    result = rf("models")
    assert any("mine" in line for line in result.stdout.splitlines())
    assert "left out, broken.toml: sampling.steps must be" in result.stderr


def test_a_model_is_shown_by_its_alias():
    result = rf("models", "show", "wan2.1")
    assert result.exit_code == 0
    assert "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in result.stdout
    assert "32760 at 832x480" in result.stdout


@pytest.mark.parametrize("name", ["shapes", "wan2.2-t2v-4step", "qwen-image-8step", "cosmos2"])
def test_every_value_that_is_shown_has_its_source(name):
    preset, text = presets.load(name), rf("models", "show", name).stdout
    for value in (preset.licence, preset.description, f"{preset.parameters:,}".replace(",", " ")):
        assert value in text
    steps = next(line for line in text.splitlines() if line.startswith("steps "))
    assert steps.split("(")[1].rstrip(")") == preset.source("sampling.steps")
    for lora in preset.loras:
        assert f"{lora.location}/{lora.file}, scale 1, {lora.component}" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shapes", "no sink, it would be 8 of 23 key blocks that a query block keeps"),
        ("wan2.1-1.3b", "sink, 13 of 65 key blocks that a query block keeps"),
        ("flux-dev", "no sink, an image has none"),
    ],
)
def test_a_model_that_is_shown_says_whether_its_first_frame_is_a_sink(name, said):
    lines = rf("models", "show", name).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("first frame")]
    assert line.removeprefix("first frame").strip() == f"{said}  (docs/evidence.md)"


def test_an_unknown_action_and_an_unknown_model_are_refused():
    assert rf("models", "delete").exit_code == 2
    result = rf("models", "show", "wan3")
    assert result.exit_code == 2 and "no model is called 'wan3'" in result.stderr


@pytest.mark.parametrize("name", ["open-sora-plan", "opensora-plan-1.2", "OpenSora"])
def test_asked_for_open_sora_plan_rf_says_where_it_is_not(name):
    result = rf("models", "show", name)
    assert result.exit_code == 2 and "is not in diffusers" in result.stderr
    assert "use hunyuanvideo or cogvideox-5b" in result.stderr


def test_a_good_preset_file_is_valid(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "wan2.1-1.3b"\ndescription = "mine"\n[sampling]\nsteps = 30\n')
    result = rf("models", "validate", str(path))
    assert result.exit_code == 0 and "is a valid preset" in result.stdout
    assert "rf finds it by name once it is in" in result.stderr


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("[sampling]\nsteps = 0", "mine.toml: sampling.steps must be a whole number of at least 1"),
        ("[tasks]\nedit = 'NoPipeline'", "mine.toml: tasks.edit: diffusers"),
        ("parameters = 3", "mine.toml: parameters is 3, the transformer has 1_418_996_800"),
        (
            "[transformer]\nconfig = { heads = 3 }",
            "mine.toml: transformer cannot be built: WanTransformer3DModel.__init__() got an "
            "unexpected keyword argument 'heads'",
        ),
        ("[transformer]\nclass_name = 'Nothing'", "mine.toml: transformer cannot be built"),
    ],
)
def test_a_bad_preset_file_is_refused_in_one_line(tmp_path, table, problem):
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "wan2.1-1.3b"\n{table}\n')
    result = rf("models", "validate", str(path))
    assert result.exit_code == 2 and problem in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2


def test_a_preset_file_that_is_not_there_is_refused(tmp_path):
    result = rf("models", "validate", str(tmp_path / "nowhere.toml"))
    assert result.exit_code == 2 and "cannot be read: No such file" in result.stderr


def test_every_command_finds_a_users_preset_by_name(folder):
    (folder / "tiny.toml").write_text(
        'base = "shapes"\n[video]\nwidth = 64\nheight = 64\nframes = 5\n'
    )
    result = rf(
        "profile", "--model", "tiny", "--layers", "1", "--format", "json", "--sparsity", "0.5"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["workload"]["size"] == "64x64"
    result = rf("generate", "a circle", "--model", "tiny", "--size", "63x64")
    assert result.exit_code == 2 and "does not fit tiny" in result.stderr
