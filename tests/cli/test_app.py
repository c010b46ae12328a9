import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rf_cli import __version__
from rf_cli.app import COMMANDS, app


def test_help_lists_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert [name for name in COMMANDS if name not in result.output] == []


@pytest.mark.parametrize("name", list(COMMANDS))
def test_command_has_help_and_a_test_file(name):
    assert COMMANDS[name].__doc__
    assert Path(__file__).with_name(f"test_{name}.py").is_file()


def test_version_is_printed():
    assert CliRunner().invoke(app, ["--version"]).output == f"rf {__version__}\n"


def test_starting_up_imports_no_torch():
    code = "import sys, rf_cli.app; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
