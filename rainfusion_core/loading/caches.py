"""Caches of diffusers, which reuse what a step before computed, set up for each model so that they do something.

Left to their defaults, some are inert and some mix up the guidance branches. What is done here about it:

- first-block: nothing but the threshold.
- mag: needs ratios that were measured on the very model; diffusers brings those of FLUX.1. They are laid over the
  steps of each run when it begins.
- taylor: the default patterns match no attention layer of Wan, and outputs of all layers would fill the memory. Only
  the output of the last projection is extrapolated, whole blocks are skipped.
- pab: keeps one state for all guidance branches and a range of timesteps that a shifted schedule crosses in few steps.
  Here each branch has its state, and the range counts steps: from 20 % to 90 % of them.

A pipeline that does not name its guidance branches gets them named by the order of passes within a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rainfusion_core.adapters import ADAPTERS
from rainfusion_core.errors import ConfigError, UnknownName
from rainfusion_core.progress import SchedulerWatch

WHOLE_BLOCKS = (
    "WanTransformer3DModel",
    "CogVideoXTransformer3DModel",
    "HunyuanVideoTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "FluxTransformer2DModel",
    "QwenImageTransformer2DModel",
    "MochiTransformer3DModel",
)
# diffusers does not know the blocks of these, or gets them wrong; of Kandinsky 5 the last layer has another name
LAST_PROJECTION = (
    "HunyuanVideo15Transformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "Flux2Transformer2DModel",
    "AllegroTransformer3DModel",
)


@dataclass(frozen=True)
class Cache:
    """One cache.

    Attributes:
        models: transformer classes that it was seen to work on.
        strength: what the number after the colon means, its default, and the least it may be.
        make: (transformer, strength, loop) -> configuration of diffusers.
    """

    models: tuple[str, ...]
    strength: tuple[str, float, float]
    make: Callable[[Any, float, "Loop"], Any]


class Loop:
    """Where the denoising loop is, for caches that diffusers leaves to count on their own."""

    def __init__(self, scheduler: Any) -> None:
        self.watch = SchedulerWatch(scheduler, on_begin=self._begin)
        self.on_begin: list[Callable[[int], None]] = []

    def _begin(self) -> None:
        for told in self.on_begin:
            told(self.watch.steps)

    def remaining(self) -> float:
        """From 1000 at the first step down to 0, whatever the schedule's shift."""
        return 1000 * (1 - self.watch.step / max(1, self.watch.steps))


def _first_block(transformer: Any, strength: float, loop: Loop) -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=strength)


def _mag(transformer: Any, strength: float, loop: Loop) -> Any:
    from diffusers import MagCacheConfig
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS, nearest_interp

    steps = len(FLUX_MAG_RATIOS)
    config = MagCacheConfig(
        threshold=strength, mag_ratios=FLUX_MAG_RATIOS, num_inference_steps=steps
    )

    def spread(steps: int) -> None:
        config.num_inference_steps = steps
        config.mag_ratios = nearest_interp(FLUX_MAG_RATIOS, steps)

    loop.on_begin.append(spread)
    return config


def _taylor(transformer: Any, strength: float, loop: Loop) -> Any:
    import torch
    from diffusers import TaylorSeerCacheConfig

    return TaylorSeerCacheConfig(
        cache_interval=int(strength), use_lite_mode=True, taylor_factors_dtype=torch.float32
    )


def _pab(transformer: Any, strength: float, loop: Loop) -> Any:
    from diffusers import PyramidAttentionBroadcastConfig

    pattern = ADAPTERS[type(transformer).__name__].self_attention.pattern
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=int(strength),
        spatial_attention_timestep_skip_range=(100, 800),
        spatial_attention_block_identifiers=(rf"^(?:{pattern})$",),
        current_timestep_callback=loop.remaining,
    )


CACHES: dict[str, Cache] = {
    "first-block": Cache(WHOLE_BLOCKS, ("threshold", 0.05, 0), _first_block),
    "mag": Cache(("FluxTransformer2DModel",), ("threshold", 0.06, 0), _mag),
    "taylor": Cache((*WHOLE_BLOCKS, *LAST_PROJECTION), ("interval", 5, 2), _taylor),
    "pab": Cache(
        (*WHOLE_BLOCKS, *LAST_PROJECTION, "Kandinsky5Transformer3DModel"), ("interval", 2, 2), _pab
    ),
}


def read_cache(text: str) -> tuple[str, float]:
    """(name, strength) of a text such as taylor or taylor:4."""
    name, colon, number = text.partition(":")
    if name == "none" and not colon:
        return name, 0.0
    if name not in CACHES:
        raise UnknownName("cache", name, ["none", *CACHES])
    word, default, least = CACHES[name].strength
    try:
        strength = float(number) if colon else default
    except ValueError:
        strength = -1.0
    whole = word == "interval"
    if strength < least or (strength == 0) or (whole and strength != int(strength)):
        kind = f"a whole number of at least {least:g}" if whole else "a number above 0"
        raise ConfigError(
            f"--cache {name}: the {word} must be {kind}, got {number!r}",
            hint=f"as in --cache {name}:{default:g}, which is its default",
        )
    return name, strength


def check(text: str, classes: Any) -> None:
    """Refuse a cache that does not work on this model."""
    name, _ = read_cache(text)
    if name == "none" or classes.transformer in CACHES[name].models:
        return
    others = [other for other, cache in CACHES.items() if classes.transformer in cache.models]
    why = "MagCache has no measured ratios for" if name == "mag" else f"--cache {name} cannot serve"
    raise ConfigError(
        f"{why} {classes.transformer}",
        hint=f"--cache {' or '.join(others)} can" if others else "no cache can; leave --cache out",
    )


def apply(pipeline: Any, transformers: Sequence[Any], text: str) -> None:
    """Put a cache into every transformer of a pipeline, for all renders that follow."""
    name, strength = read_cache(text)
    if name == "none":
        return
    loop = Loop(pipeline.scheduler)
    for transformer in transformers:
        transformer.enable_cache(CACHES[name].make(transformer, strength, loop))
        if name == "pab":
            _separate_branches(transformer)
        _name_branches(transformer, loop)


def _hooks(transformer: Any) -> list[Any]:
    registries = [getattr(module, "_diffusers_hook", None) for module in transformer.modules()]
    return [hook for registry in registries if registry for hook in registry.hooks.values()]


def _separate_branches(transformer: Any) -> None:
    from diffusers.hooks.hooks import StateManager
    from diffusers.hooks.pyramid_attention_broadcast import (
        PyramidAttentionBroadcastHook,
        PyramidAttentionBroadcastState,
    )

    class BranchStates(StateManager):
        """The state of the running branch, under the names that the hook reads and writes."""

        @property
        def cache(self) -> Any:
            return self.get_state().cache

        @cache.setter
        def cache(self, value: Any) -> None:
            self.get_state().cache = value

        @property
        def iteration(self) -> int:
            return self.get_state().iteration

        @iteration.setter
        def iteration(self, value: int) -> None:
            self.get_state().iteration = value

    for hook in _hooks(transformer):
        if isinstance(hook, PyramidAttentionBroadcastHook):
            hook.state = BranchStates(PyramidAttentionBroadcastState)


def _name_branches(transformer: Any, loop: Loop) -> None:
    """Where the pipeline opens no cache context, open one: first pass of a step, second pass, …"""
    from diffusers.hooks.hooks import CacheContext, StateManager

    managers = [
        value
        for hook in _hooks(transformer)
        for value in vars(hook).values()
        if isinstance(value, StateManager)
    ]
    passes = {"step": -1, "count": 0, "named": 0}

    def before(module: Any, args: Any) -> None:
        passes["named"] = managers[0]._context is None
        if passes["named"]:
            again = passes["step"] == loop.watch.step
            passes["count"] = passes["count"] + 1 if again else 1
            passes["step"] = loop.watch.step
            _set(CacheContext(name=f"pass {passes['count']}"))

    def after(module: Any, args: Any, output: Any) -> None:
        if passes["named"]:
            _set(None)

    def _set(context: Any) -> None:
        for manager in managers:
            manager.set_context(context)

    loop.on_begin.append(lambda steps: passes.update(step=-1))
    transformer.register_forward_pre_hook(before)
    transformer.register_forward_hook(after, always_call=True)
