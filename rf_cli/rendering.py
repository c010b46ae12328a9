"""Renders jobs one after the other with a model that is loaded once, and writes each as soon as it is done."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rf_cli import media
from rf_cli.batch import Job
from rf_cli.progress import Report, live

if TYPE_CHECKING:
    from rainfusion_core.config import SparseConfig
    from rainfusion_core.pipeline import ModelSource


def render_jobs(
    source: "ModelSource", jobs: Sequence[Job], config: "SparseConfig", *, fps: int, quiet: bool
) -> Iterator[dict[str, Any]]:
    """Yields the record of each job when its files are written; without jobs nothing is loaded."""
    if not jobs:
        return
    import torch

    from rainfusion_core.pipeline import load
    from rainfusion_core.render import render
    from rainfusion_core.timing import peak_memory_bytes
    from rf_cli.record import record

    def memory() -> int:
        return peak_memory_bytes(torch.device(source.device))

    with live(quiet=quiet, memory_bytes=memory) as report:
        begin = time.perf_counter()
        pipeline = load(source)
        load_s = time.perf_counter() - begin
        for number, job in enumerate(jobs, 1):
            progress = _labelled(report, number, len(jobs))
            rendered = render(
                pipeline, job.clip, config, progress=progress, measure_speed=number == 1
            )
            written = record(
                dict(job.settings), rendered.report, video=job.output, load_s=load_s,
                device=source.device,
            )  # fmt: skip
            sound = rendered.sound
            written["sound"] = sound and {
                "rate": sound.rate, "channels": sound.samples.shape[1], "seconds": sound.seconds,
            }  # fmt: skip
            media.write_render(job.output, rendered.frames, written, fps=fps, sound=sound)
            yield written


def _labelled(report: Report, number: int, jobs: int) -> Report:
    label = "" if jobs == 1 else f"{number}/{jobs} "
    return lambda stage, step, steps: report(f"{label}{stage}", step, steps)
