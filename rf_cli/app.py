"""The rf application: its commands, and the one place where an error becomes a message."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


# Typer has click inside or beside it, depending on its version, and exports only this child
UsageError: Any = typer.BadParameter.__base__


class Rf(TyperGroup):
    """Prints what a user did wrong and exits with 2, Ctrl-C with 130; anything else is a bug."""

    def make_context(self, info_name: str | None, *args: Any, **kwargs: Any) -> Any:
        with _told(lambda: f"{info_name} --help lists the commands"):
            return super().make_context(info_name, *args, **kwargs)

    def invoke(self, ctx: Any) -> object:
        def hint() -> str:
            if ctx.invoked_subcommand is None:
                return f"{ctx.command_path} --help lists the commands"
            return f"{ctx.command_path} {ctx.invoked_subcommand} --help lists the options"

        with _told(hint):
            return super().invoke(ctx)


@contextmanager
def _told(usage_hint: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except RainfusionError as error:
        _print_error(str(error), error.hint)
        raise typer.Exit(2) from error
    except UsageError as error:
        if problem := _usage_problem(error):  # `rf` alone has printed its help instead
            _print_error(problem, usage_hint())
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        _print("bold red", "interrupted:", "nothing unfinished was written")
        raise typer.Exit(130) from interrupt


def _usage_problem(error: Any) -> str:
    from pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):  # its own text does not have the value
        wrong = error.__cause__.errors()[0]
        allowed = wrong["msg"].partition(",")[0].replace("Input should", "must")
        return f"{error.param.opts[0]} {allowed}, got {wrong['input']!r}"
    text = error.format_message()
    return text[:1].lower() + text[1:].rstrip(".")


def _print_error(problem: str, hint: str | None) -> None:
    _print("bold red", "error:", problem)
    if hint:
        _print("bold cyan", " hint:", hint)


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
