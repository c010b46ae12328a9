"""The two consoles of rf: results on stdout, everything else on stderr."""

from rich.console import Console

out = Console()
err = Console(stderr=True)


def note(text: str) -> None:
    """One line beside the results, on stderr."""
    err.print(f"[dim]{text}[/]", highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    err.print(f"[bold yellow]warning:[/] {text}", highlight=False, soft_wrap=True)
