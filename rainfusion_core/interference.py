"""How much of the processor other programs used while something was measured."""

import os
import time


class Interference:
    """Measures from its creation on. On a machine where other programs run, times mean little."""

    def __init__(self) -> None:
        self._busy, self._own, self._begin = _busy_seconds(), _own_seconds(), time.perf_counter()

    def share(self) -> float | None:
        """Share of this process's cores that others kept busy, in [0, 1]; None where no system tells."""
        busy, wall = _busy_seconds(), time.perf_counter() - self._begin
        if busy is None or self._busy is None or wall <= 0:
            return None
        others = busy - self._busy - (_own_seconds() - self._own)
        return min(1.0, max(0.0, others / wall / len(_cores())))


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _busy_seconds() -> float | None:
    """Seconds that the cores of this process were busy since the machine started."""
    import psutil

    try:
        cores = psutil.cpu_times(percpu=True)
    except (OSError, NotImplementedError):
        return None
    if len(cores) <= max(_cores()):  # a container that shows another number of cores
        return None
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(
        sum(seconds for state, seconds in cores[core]._asdict().items() if state not in idle)
        for core in _cores()
    )


def _own_seconds() -> float:
    """Seconds of this process and of those it waited for."""
    return sum(os.times()[:4])
