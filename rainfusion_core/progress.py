"""Where the denoising loop is: the step, how many there are, and the guidance branch of a forward pass.

Three sources, best first: what the pipeline says through `cache_context`, the pipeline's scheduler, and the
timestep that the transformer is given.
"""

import copy
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


class SchedulerWatch:
    """Counts the calls of one scheduler's `step` until `remove`.

    Attributes:
        step: finished steps of the loop that runs.
        copied: the pipeline runs copies of the scheduler, so `step` says nothing.

    Args:
        on_begin: called when a loop's timesteps are set.
        on_step: called after every step.
    """

    def __init__(
        self,
        scheduler: Any,
        on_begin: Callable[[], None] = lambda: None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.scheduler, self.step, self.copied = scheduler, 0, False
        self._on_begin, self._on_step = on_begin, on_step
        self._before = {name: scheduler.__dict__.get(name) for name in ("set_timesteps", "step")}
        scheduler.set_timesteps = _Watched(self, scheduler.set_timesteps, self._begin)
        scheduler.step = _Watched(self, scheduler.step, self._count)

    def _begin(self) -> None:
        self.step, self.copied = 0, False
        self._on_begin()

    def _count(self) -> None:
        self.step += 1
        self._on_step()

    @property
    def steps(self) -> int:
        timesteps = getattr(self.scheduler, "timesteps", None)
        return 0 if timesteps is None else len(timesteps)

    def remove(self) -> None:
        for name, value in self._before.items():
            if value is None:
                self.scheduler.__dict__.pop(name, None)
            else:
                setattr(self.scheduler, name, value)


class _Watched:
    """A method of a scheduler that tells the watch when it has run.

    Its signature is the method's, because pipelines look there for what a scheduler can do.
    """

    def __init__(self, watch: SchedulerWatch, method: Any, after: Callable[[], None]) -> None:
        self._watch, self._method, self._after = watch, method, after
        functools.update_wrapper(self, method, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._method(*args, **kwargs)
        self._after()
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the scheduler, as diffusion forcing makes one a frame, gets its own method."""
        self._watch.copied = True
        if isinstance(self._method, _Watched):
            return copy.deepcopy(self._method, memo)
        return types.MethodType(self._method.__func__, memo[id(self._watch.scheduler)])


class LoopPosition:
    """The position of one transformer's forward passes in the denoising loop."""

    def __init__(self, transformer: nn.Module, pipeline: Any = None) -> None:
        self._pipeline, self._transformer = pipeline, transformer
        self._watch: SchedulerWatch | None = None
        self._facts: Mapping[str, Any] = {}
        self._timestep: float | None = None
        self._counted = 0
        self._calls = 0
        self._branch: str | None = None
        self._wrap_cache_context()
        self._watch_scheduler()

    def at(self, arguments: Mapping[str, Any]) -> tuple[int, int, str]:
        """(step, steps, branch) of a forward pass; steps is 0 while unknown."""
        step, steps = self._step(arguments)
        self._calls = self._calls + 1 if step == self._counted else 1
        self._counted = step
        # Kandinsky and others name no branch: within a step the conditional pass comes first
        branch = self._branch or ("cond" if self._calls % 2 else "uncond")
        return step, steps, branch

    def remove(self) -> None:
        self._transformer.__dict__.pop("cache_context", None)
        if self._watch is not None:
            self._watch.remove()

    def _step(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        step, steps = (self._facts.get(key) for key in ("step_index", "num_inference_steps"))
        if step is not None:
            return step, steps or 0
        if self._pipeline is not None:
            self._watch_scheduler()
        if self._watch is not None and not self._watch.copied:
            return self._watch.step, self._watch.steps
        timestep = getattr(self._pipeline, "_current_timestep", None)
        if timestep is None:
            timestep = arguments.get("timestep")
        return self._count_timesteps(timestep), getattr(self._pipeline, "_num_timesteps", 0)

    def _count_timesteps(self, timestep: Any) -> int:
        """A smaller timestep is the next step, a larger one a new run. Waits for the device.

        Of a tensor the mean counts: with a timestep a frame, not every frame moves in every step.
        """
        if timestep is None:
            return 0
        now = float(timestep.double().mean()) if hasattr(timestep, "mean") else float(timestep)
        new_run = self._timestep is None or now > self._timestep
        step = 0 if new_run else self._counted + (now != self._timestep)
        self._timestep = now
        return step

    def _watch_scheduler(self) -> None:
        scheduler = getattr(self._pipeline, "scheduler", None)
        if scheduler is None or (self._watch and self._watch.scheduler is scheduler):
            return
        if self._watch is not None:
            self._watch.remove()
        self._watch = SchedulerWatch(scheduler)

    def _wrap_cache_context(self) -> None:
        original = getattr(self._transformer, "cache_context", None)
        if original is None:  # a transformer without diffusers' CacheMixin
            return

        @contextmanager
        def cache_context(name: str, **facts: Any) -> Iterator[None]:
            self._branch, self._facts = name, facts
            try:
                with original(name, **facts):
                    yield
            finally:
                self._branch, self._facts = None, {}

        self._transformer.__dict__["cache_context"] = cache_context
