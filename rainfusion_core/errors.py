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

LONG_TABLE, SHOWN = 20, 5  # names: of more than so many only so many are shown


class RainfusionError(Exception):
    """Base class: `str(error)` says what is wrong, `error.hint` the next thing to try."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(problem)
        self.hint = hint


class UnknownName(RainfusionError):
    """Lists the known names, or of a long table only the nearest.

    Args:
        listed: where all names are to be found, as in "rf models lists all".
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, listed: str | None = None
    ) -> None:
        known = sorted(known)
        shown, rest = known, ""
        if len(known) > LONG_TABLE:
            shown = get_close_matches(name, known, n=SHOWN, cutoff=0)
            rest = f" and {len(known) - len(shown)} more"
        close = get_close_matches(name, known, n=1)
        hints = [f"did you mean {close[0]!r}?" if close else None, listed]
        super().__init__(
            f"no {kind} is called {name!r}; known: {', '.join(shown)}{rest}",
            hint=" ".join(filter(None, hints)) or None,
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
