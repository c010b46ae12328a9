from typer.testing import CliRunner

from rf_cli import presets
from rf_cli.app import app


def rf(*args: str):
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})


def test_every_preset_is_listed_and_the_embedded_one_is_here():
    lines = rf("models").stdout.splitlines()
    for name in presets.names():
        assert any(name in line for line in lines)
    assert next(line for line in lines if "shapes" in line).split()[-2:] == ["yes", "│"]


def test_a_model_is_shown_by_its_alias():
    result = rf("models", "show", "wan2.1")
    assert result.exit_code == 0
    assert "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in result.stdout
    assert "32760 at 832x480" in result.stdout


def test_an_unknown_action_and_an_unknown_model_are_refused():
    assert rf("models", "delete").exit_code == 2
    result = rf("models", "show", "wan3")
    assert result.exit_code == 2 and "no model is called 'wan3'" in result.stderr
