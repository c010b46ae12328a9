"""Dense or sparse: what the schedule says for each denoising step and layer."""

import math
from dataclasses import dataclass

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """The schedule of one run.

    Attributes:
        first: leading dense steps.
        last: trailing dense steps.
        steps: denoising steps of the run; 0 while unknown, then no trailing step is dense.
        layers: dense layers, counted from 0.
        sparsity: of the calls that run sparse.
    """

    first: int
    last: int
    steps: int
    layers: frozenset[int]
    sparsity: float

    def dense_reason(self, step: int, layer: int) -> str | None:
        """Why this call runs dense by request, or None if it runs sparse."""
        if self.sparsity == 0:
            return "sparsity 0"
        if step < self.first or (self.steps and step >= self.steps - self.last):
            return "dense step"
        return "dense layer" if layer in self.layers else None


def plan(config: SparseConfig, *, steps: int, layers: int) -> Schedule:
    """The schedule of a run of `steps` denoising steps through `layers` self-attention layers."""
    outside = [layer for layer in config.dense_layers if not -layers <= layer < layers]
    if outside:
        raise ConfigError(
            f"dense_layers names layer {outside[0]}, the model has layers 0 to {layers - 1}",
            hint="negative numbers count from the end: -1 is the last layer",
        )
    return Schedule(
        first=step_count(config.dense_steps, steps),
        last=step_count(config.dense_last_steps, steps),
        steps=steps,
        layers=frozenset(layer % layers for layer in config.dense_layers),
        sparsity=config.sparsity,
    )


def step_count(value: float, steps: int) -> int:
    """A number of steps, or a share in (0, 1) of all steps rounded up, as a number of steps."""
    return math.ceil(value * steps - 1e-9) if 0 < value < 1 else int(value)
