"""Renders the same clips dense and sparse, in turn, and measures every arm against the dense one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, RainfusionError
from rainfusion_core.kernels.dense import available_dense, choose_dense
from rainfusion_core.metrics import ClipMetrics, Perceptual, clip_metrics
from rainfusion_core.render import Clip, Progress, Rendered, render
from rainfusion_core.report import RenderReport

DENSE, NOISE_FLOOR = "dense", "noise floor"
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Arm:
    """One way to render a clip."""

    name: str
    config: SparseConfig


@dataclass(frozen=True)
class Run:
    """One render: `clip_index` and `repeat` count from 0."""

    arm: Arm
    clip: Clip
    clip_index: int
    repeat: int


class Store(Protocol):
    """Where finished renders are kept, so that an interrupted comparison can go on."""

    def load(self, run: Run) -> Rendered | None:
        """The stored render of exactly this run, or None."""

    def save(self, run: Run, rendered: Rendered) -> None: ...


@dataclass(frozen=True)
class ArmResult:
    """One arm of one clip: the reports of all repeats, and how the first one compares."""

    arm: Arm
    reports: tuple[RenderReport, ...]
    reused: int
    metrics: ClipMetrics


@dataclass(frozen=True)
class ClipResult:
    """One clip through all arms, the dense one first; `frames` of each arm's first run."""

    clip: Clip
    index: int
    arms: tuple[ArmResult, ...]
    frames: tuple[np.ndarray, ...]


def noise_floor(config: SparseConfig, device: str, dtype: torch.dtype) -> Arm:
    """Dense through another exact kernel than the dense arm: what rounding alone does to a clip.

    Raises:
        ConfigError: the device has no second exact kernel.
    """
    probe = torch.empty(0, dtype=dtype, device=device)
    used = choose_dense(config.dense_kernel, probe, probe, probe)
    others = [name for name in available_dense(probe.device, dtype) if name != used]
    if not others:
        raise ConfigError(f"--noise-floor needs a second exact dense kernel, there is only {used}")
    return Arm(NOISE_FLOOR, replace(config, sparsity=0.0, dense_kernel=others[-1]))


def compare(
    load: Callable[[], Any],
    arms: Sequence[Arm],
    clips: Sequence[Clip],
    store: Store,
    *,
    repeats: int = 1,
    perceptual: Perceptual | None = None,
    progress: Callable[[Run | None], Progress] = lambda run: lambda stage, step, steps: None,
) -> Iterator[ClipResult]:
    """Render every clip through every arm; a clip is yielded as soon as all its arms are finished.

    All arms share the model, the seed and its noise. Before the first render each arm runs
    `WARM_UP_STEPS` steps that are discarded. Within a clip the arms take turns, so that a machine
    whose speed drifts is fair to all of them.

    Args:
        load: returns the pipeline; called once, and not at all if the store has every run.
        arms: the first one is what the others are measured against.
        progress: what to tell about a run, or about the warm-up if it is given None.
    """
    check_arms(arms)
    pipeline: Any = None
    for index, clip in enumerate(clips):
        runs = [Run(arm, clip, index, repeat) for repeat in range(repeats) for arm in arms]
        firsts: dict[str, Rendered] = {}
        reports: dict[str, list[RenderReport]] = {arm.name: [] for arm in arms}
        reused = dict.fromkeys(reports, 0)
        for run in runs:
            rendered = store.load(run)
            if rendered is None:
                if pipeline is None:
                    pipeline = load()
                    _warm_up(pipeline, arms, clip, progress(None))
                rendered = _render(pipeline, run, progress(run))
                store.save(run, rendered)
            else:
                reused[run.arm.name] += 1
            firsts.setdefault(run.arm.name, rendered)
            reports[run.arm.name].append(rendered.report)
        yield _clip_result(clip, index, arms, firsts, reports, reused, perceptual)


def check_arms(arms: Sequence[Arm]) -> None:
    """Refuse two arms that would render the same thing or share a name."""
    for index, arm in enumerate(arms):
        for other in arms[:index]:
            if arm.name == other.name or arm.config == other.config:
                raise ConfigError(
                    f"two arms are the same: {other.name} and {arm.name}",
                    hint="leave one of them out; the dense arm is always there",
                )


def _clip_result(
    clip: Clip,
    index: int,
    arms: Sequence[Arm],
    firsts: dict[str, Rendered],
    reports: dict[str, list[RenderReport]],
    reused: dict[str, int],
    perceptual: Perceptual | None,
) -> ClipResult:
    reference = firsts[arms[0].name]
    results = []
    for arm in arms:
        first = firsts[arm.name]
        metrics = clip_metrics(
            reference.frames,
            first.frames,
            latents=(reference.latents, first.latents),
            perceptual=perceptual,
        )
        results.append(ArmResult(arm, tuple(reports[arm.name]), reused[arm.name], metrics))
    return ClipResult(clip, index, tuple(results), tuple(firsts[arm.name].frames for arm in arms))


def _warm_up(pipeline: Any, arms: Sequence[Arm], clip: Clip, progress: Progress) -> None:
    """A few discarded steps of every arm, without its dense steps and layers, so its kernel runs."""
    short = replace(clip, steps=min(WARM_UP_STEPS, clip.steps))
    for arm in arms:
        config = replace(arm.config, dense_steps=0, dense_last_steps=0, dense_layers=())
        with _fits(clip):
            render(pipeline, short, config, progress=progress, measure_speed=False)


def _render(pipeline: Any, run: Run, progress: Progress) -> Rendered:
    with _fits(run.clip):
        return render(pipeline, run.clip, run.arm.config, progress=progress, measure_speed=False)


@contextmanager
def _fits(clip: Clip) -> Iterator[None]:
    """Too little memory becomes one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        exhausted = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not exhausted and "allocate memory" not in str(error):
            raise
        raise RainfusionError(
            f"{clip.frames} frames of {clip.width}x{clip.height} do not fit into the memory",
            hint="make the clip smaller with --size or --frames, or use --dtype bfloat16",
        ) from error
