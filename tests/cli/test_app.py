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


USAGE = {
    "number": (
        ["generate", "-s", "abc", "x"],
        "--sparsity must be a valid number, got 'abc'",
        "rf generate --help lists the options",
    ),
    "whole-number": (
        ["profile", "--layers", "1.5"],
        "--layers must be a valid integer, got '1.5'",
        "rf profile --help lists the options",
    ),
    "one-of-many-numbers": (
        ["compare", "x", "-s", "0.5", "-s", "high"],
        "--sparsity must be a valid number, got 'high'",
        "rf compare --help lists the options",
    ),
    "option": (
        ["generate", "--sparcity", "0.5", "x"],
        "no such option: --sparcity (Possible options: --sparsity)",
        "rf generate --help lists the options",
    ),
    "option-without-value": (
        ["generate", "x", "--sparsity"],
        "option '--sparsity' requires an argument",
        "rf generate --help lists the options",
    ),
    "argument": (["inspect"], "missing argument", "rf inspect --help lists the options"),
    "too-many": (["env", "now"], "got unexpected extra argument", "rf env --help lists the options"),
    "command": (["generat", "x"], "no such command 'generat'", "rf --help lists the commands"),
    "option-of-rf": (["--sparsity"], "no such option: --sparsity", "rf --help lists the commands"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "problem", "hint"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_told_as_every_other_error(args, problem, hint):
    result = CliRunner().invoke(app, args, prog_name="rf")
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {problem}") and second == f" hint: {hint}"


def test_rf_alone_prints_its_help_and_no_error():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "generate" in result.output and "error" not in result.output


def test_starting_up_imports_no_torch():
    code = "import sys, rf_cli.app; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
