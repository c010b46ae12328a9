"""Live progress on stderr: stage, step, seconds a step, time left, memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rf_cli import console

Report = Callable[[str, int, int], None]


@contextmanager
def live(*, quiet: bool, memory_bytes: Callable[[], int]) -> Iterator[Report]:
    """Yields what a render reports to. Shows nothing if quiet or if stderr is no terminal."""
    if quiet or not console.err.is_terminal:
        yield lambda stage, step, steps: None
        return
    columns = (
        TextColumn("[bold]{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[memory]}"),
    )
    with Progress(*columns, console=console.err, transient=True) as bars:
        task = bars.add_task("loading", total=None, pace="", memory="")
        begin = time.monotonic()

        def report(stage: str, step: int, steps: int) -> None:
            nonlocal begin
            begin = time.monotonic() if step == 0 else begin
            pace = f"{(time.monotonic() - begin) / step:.2f} s/step" if step else ""
            bars.update(
                task,
                description=stage,
                completed=step,
                total=steps if steps > 1 else None,
                pace=pace,
                memory=f"{memory_bytes() / 2**30:.1f} GiB",
            )

        yield report
