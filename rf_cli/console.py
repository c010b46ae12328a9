"""The two consoles of rf: results on stdout, everything else on stderr."""

from collections.abc import Iterable

from rich.console import Console

NEGLIGIBLE = 0.1  # share of the cores that other programs may use beside a measurement

out = Console()
err = Console(stderr=True)


def note(text: str) -> None:
    """One line beside the results, on stderr."""
    err.print(f"[dim]{text}[/]", highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    err.print(f"[bold yellow]warning:[/] {text}", highlight=False, soft_wrap=True)


def of_others(shares: Iterable[float | None]) -> str | None:
    """What to say of times that were measured beside other programs, if they were."""
    most = max((share for share in shares if share is not None), default=0.0)
    if most <= NEGLIGIBLE:
        return None
    return (
        f"other programs kept {most:.0%} of the processor busy meanwhile: these are not the times "
        "of a quiet machine"
    )
