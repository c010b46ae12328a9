"""Timers: wall time on the CPU, events on a GPU, so that timing never makes the host wait."""

import time
from typing import Any

import torch


class Span:
    """One timed stretch of work on a device. Read `seconds` only after the work has been waited for."""

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[Any, Any] | None = None
        if device.type == "cuda":
            self._events = tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[assignment]
            self._events[0].record()  # type: ignore[index]
        self._begin = time.perf_counter()
        self._seconds: float | None = None

    def stop(self) -> "Span":
        if self._events is None:
            self._seconds = time.perf_counter() - self._begin
        else:
            self._events[1].record()
        return self

    @property
    def seconds(self) -> float:
        if self._seconds is None:
            assert self._events is not None, "the span was never stopped"
            self._events[1].synchronize()
            self._seconds = self._events[0].elapsed_time(self._events[1]) / 1e3
        return self._seconds


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing to do on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak_memory` on a GPU; peak resident size of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
