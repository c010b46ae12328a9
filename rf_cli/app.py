"""The rf application: its commands, and the one place where an error becomes a message."""

from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from rainfusion_core.errors import RainfusionError
from rainfusion_core.registry import Registry
from rf_cli import __version__, console

COMMANDS: Registry[Callable[..., None]] = Registry(
    "command",
    {
        "generate": "rf_cli.commands.generate:generate",
        "compare": "rf_cli.commands.compare:compare",
        "ablate": "rf_cli.commands.ablate:ablate",
        "inspect": "rf_cli.commands.inspect:inspect",
        "models": "rf_cli.commands.models:models",
        "profile": "rf_cli.commands.profile:profile",
        "env": "rf_cli.commands.env:env",
    },
)


class Rf(TyperGroup):
    """Prints a `RainfusionError` and exits with 2, Ctrl-C with 130; anything else is a bug."""

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except RainfusionError as error:
            _print("bold red", "error:", str(error))
            if error.hint:
                _print("bold cyan", " hint:", error.hint)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            _print("bold red", "interrupted:", "nothing unfinished was written")
            raise typer.Exit(130) from interrupt


def _print(style: str, label: str, text: str) -> None:
    console.err.print(f"[{style}]{label}[/] {escape(text)}", highlight=False, soft_wrap=True)


app = typer.Typer(cls=Rf, no_args_is_help=True, pretty_exceptions_enable=False)
for name, command in COMMANDS.items():
    app.command(name)(command)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"rf {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def rf(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Video generation made faster by RainFusion2.0 block-sparse attention."""


def main() -> None:
    app()
