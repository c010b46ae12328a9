"""The command of a record gives the same run when it is pasted into a shell."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from rf_cli.command_line import command_line


def told(*args: str) -> str:
    """The command line that a command finds which was called with `args`."""
    app = typer.Typer()

    @app.command()
    def draw(
        context: typer.Context,
        prompt: str,
        sparsity: Annotated[list[float] | None, typer.Option("--sparsity", "-s")] = None,
        videos: tuple[Path, Path] | None = None,
        lpips: Annotated[bool, typer.Option("--lpips")] = False,
        steps: int = 3,
        quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
    ) -> None:
        typer.echo(command_line(context))

    result = CliRunner().invoke(app, args, prog_name="draw")
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_what_was_given_is_told_by_its_long_name_and_nothing_else():
    line = told("a red circle's way", "-s", "0.5", "-s", "0.9", "--lpips", "--videos", "a", "b c")
    words = ["rf", "draw", "a red circle's way", "--sparsity", "0.5", "--sparsity", "0.9"]
    assert shlex.split(line) == [*words, "--videos", "a", "b c", "--lpips"]


def test_what_only_decides_about_the_screen_is_not_told():
    assert told("x", "-q") == "rf draw x"
