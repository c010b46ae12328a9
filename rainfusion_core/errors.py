"""Every error a user can cause.

RainfusionError
├── UnknownName        a name that is not in its table
├── ConfigError        a setting out of range, or two settings that exclude each other
├── UnsupportedLayout  the attention call cannot be made sparse (the caller may run it dense)
├── KernelUnavailable  this machine cannot run the requested kernel
├── ModelUnavailable   the weights are neither here nor reachable, or cannot be loaded
└── OutputError        a file cannot be written where it was asked for
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RainfusionError(Exception):
    """Base class: `str(error)` says what is wrong, `error.hint` the next thing to try."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(problem)
        self.hint = hint


class UnknownName(RainfusionError):
    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=1)
        super().__init__(
            f"no {kind} is called {name!r}; known: {', '.join(known)}",
            hint=f"did you mean {close[0]!r}?" if close else None,
        )


class ConfigError(RainfusionError):
    pass


class UnsupportedLayout(RainfusionError):
    pass


class KernelUnavailable(RainfusionError):
    pass


class ModelUnavailable(RainfusionError):
    pass


class OutputError(RainfusionError):
    pass
