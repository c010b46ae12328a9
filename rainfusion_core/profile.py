"""Measures forward passes of a full-size transformer, dense and sparse, part by part. Needs no weights."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn

from rainfusion_core.adapters import ADAPTERS, ModelAdapter
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnsupportedLayout
from rainfusion_core.interception import intercepted, register
from rainfusion_core.layout import TokenLayout
from rainfusion_core.loading.random_weights import parameter_count, random_inputs, random_model
from rainfusion_core.memory import activation_bytes, fitting_layers, free_bytes
from rainfusion_core.profiling.parts import PartTimer, PartTimes, layer_names
from rainfusion_core.profiling.phases import PhasedAttention
from rainfusion_core.report import AttentionSpeed
from rainfusion_core.timing import synchronize

MOST_REPEATS = 5
SMALL_MODEL_LAYERS, SAMPLE_LAYERS = 8, 2
# settings that count layers; where a model has two kinds, both are in proportion in a sample
LAYER_COUNTS = ("num_layers", "num_single_layers", "num_visual_blocks")
LAYER_LISTS = ("vace_layers",)  # layers that stand beside others, by the numbers of those
# these are given tokens: the pipeline has joined 2 x 2 latents into one
PACKED = ("FluxTransformer2DModel", "Flux2Transformer2DModel", "QwenImageTransformer2DModel")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A transformer without its weights: class of diffusers, and what differs from its defaults."""

    class_name: str
    config: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """The configuration, defaults included."""
        import inspect

        from rainfusion_core.loading.random_weights import transformer_class

        signature = inspect.signature(transformer_class(self.class_name).__init__)
        defaults = {name: each.default for name, each in signature.parameters.items()}
        return {**defaults, **self.config}

    @property
    def kinds(self) -> dict[str, int]:
        """Setting -> layers of that kind, in the order in which they run."""
        settings = self.settings()
        counts = {name: settings[name] for name in LAYER_COUNTS if settings.get(name)}
        lists = {name: len(settings[name]) for name in LAYER_LISTS if settings.get(name)}
        return counts | lists

    @property
    def layers(self) -> int:
        return sum(self.kinds.values())

    @property
    def sample(self) -> int:
        """Layers that stand for all: of a model with two kinds, one of the rarer and its share."""
        rarest = min(self.kinds.values())
        whole = sum(round(count / rarest) for count in self.kinds.values())
        return max(SAMPLE_LAYERS, whole)

    @property
    def heads(self) -> int:
        settings = self.settings()
        if "axes_dims" in settings:  # Kandinsky names widths instead
            return int(settings["model_dim"]) // sum(settings["axes_dims"])
        return int(settings["num_attention_heads"])

    @property
    def head_dim(self) -> int:
        settings = self.settings()
        return int(settings.get("attention_head_dim") or sum(settings["axes_dims"]))

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns that one token covers."""
        if self.class_name in PACKED:
            return 1, 1, 1
        settings = self.settings()
        size = settings["patch_size"]
        if isinstance(size, int):
            return settings.get("patch_size_t") or 1, size, size
        return tuple(size)

    def with_layers(self, layers: int) -> "Architecture":
        """The same with fewer layers, each kind in proportion and at least one of each."""
        kinds, total = self.kinds, self.layers
        counts: dict[str, Any] = {}
        rest = layers
        for number, (name, count) in enumerate(kinds.items()):
            after = len(kinds) - number - 1
            share = rest if not after else round(layers * count / total)
            counts[name] = min(max(1, share), max(1, rest - after))
            rest -= counts[name]
        counts |= {name: list(range(counts[name])) for name in LAYER_LISTS if name in counts}
        return replace(self, config={**self.config, **counts})


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one forward pass computes.

    Attributes:
        latents: frames, height and width before patchify.
        tokens: of the video.
        layers: how many to run; None takes all of a model with few, and two of any other.
    """

    architecture: Architecture
    latents: tuple[int, int, int]
    tokens: int
    text_tokens: int
    dtype: torch.dtype
    device: torch.device
    layers: int | None = None


@dataclass(frozen=True)
class Arm:
    """The forward pass of one sparsity whose time is the median of all that were timed.

    Attributes:
        seconds: wall time of the pass, measured around it; the parts are measured inside.
        density: share of block pairs that the last call kept.
        seconds_of_all: every timed pass.
    """

    sparsity: float
    kernel: str
    density: float
    seconds: float
    parts: PartTimes
    seconds_of_all: tuple[float, ...]


@dataclass(frozen=True)
class StepProfile:
    """Measured forward passes, the dense one first.

    Attributes:
        layers: of the whole model; `layers_run` of them were run.
        cut: why fewer layers were run than asked for, or None.
    """

    arms: tuple[Arm, ...]
    layers: int
    layers_run: int
    cut: str | None
    layout: TokenLayout

    def attention_seconds(self, arm: Arm) -> float:
        """Self-attention of all layers in one pass; an estimate if not all layers were run."""
        return sum(s for part, s in self.whole(arm).items() if part.startswith("attention"))

    def rest_seconds(self) -> float:
        """Everything else in one pass of all layers: the same work in every arm, so their median."""
        return median(
            sum(self.whole(arm).values()) - self.attention_seconds(arm) for arm in self.arms
        )

    def call(self, arm: Arm, *, heads: int, head_dim: int, dtype: str) -> AttentionSpeed:
        """One attention call of an arm beside a dense one, each the mean over the layers."""
        dense = self.arms[0]
        ms = [1e3 * self.attention_seconds(each) / self.layers for each in (arm, dense)]
        return AttentionSpeed(
            tokens=self.layout.tokens,
            heads=heads,
            head_dim=head_dim,
            dtype=dtype,
            sparse_ms=ms[0],
            dense_ms=ms[1],
            kernel=arm.kernel,
            dense_kernel=dense.kernel,
            repeats=self.layers_run,
        )

    def whole(self, arm: Arm) -> dict[str, float]:
        """Seconds by part of one pass of all layers: layers are alike, so theirs are multiplied."""
        return arm.parts.scaled(self.layers / self.layers_run)


def layers_that_fit(work: Workload) -> tuple[int, str | None]:
    """How many layers to run, and what was cut because of memory.

    Raises:
        ConfigError: not even one layer fits, or a number of layers that the model does not have.
    """
    model = work.architecture
    default = model.layers if model.layers <= SMALL_MODEL_LAYERS else model.sample
    asked = default if work.layers is None else work.layers
    least = len(model.kinds)
    if not least <= asked <= model.layers:
        raise ConfigError(f"layers must be in [{least}, {model.layers}], got {asked}")
    # of a model with two kinds the second one is counted as if it were as large as the first
    one, two = (
        parameter_count(model.class_name, model.with_layers(n).config) for n in (least, least + 1)
    )
    width, itemsize = model.heads * model.head_dim, work.dtype.itemsize
    ffn_dim = int(model.settings().get("ffn_dim") or 4 * width)
    layers = fitting_layers(
        asked,
        layer_bytes=(two - one) * itemsize,
        other_bytes=(one - least * (two - one)) * itemsize
        + activation_bytes(work.tokens, width, ffn_dim, itemsize),
        free=free_bytes(work.device),
        what=f"{work.tokens} tokens on {work.device}",
    )
    cut = f"{layers} of the {asked} layers fit into the memory of {work.device}"
    return layers, cut if layers < asked else None


def build(work: Workload) -> nn.Module:
    """The transformer of `work` with random weights, and as many layers as `work.layers` says."""
    model = work.architecture.with_layers(work.layers or work.architecture.layers)
    return random_model(model.class_name, model.config, device=work.device, dtype=work.dtype)


def profile(
    work: Workload,
    configs: Sequence[SparseConfig],
    *,
    transformer: nn.Module | None = None,
    seconds: float = 90.0,
    progress: Progress | None = None,
) -> StepProfile:
    """Time forward passes, dense and then of each config, in turn, after an untimed one of each.

    Args:
        configs: sparse settings; schedules are ignored, every call of a pass is alike.
        transformer: with weights; None builds one with random weights, as large as memory allows.
        seconds: no further round is begun that would end later, once one is timed.
    """
    model, cut = transformer, None
    if model is None:
        layers, cut = layers_that_fit(work)
        model = build(replace(work, layers=layers))
    adapter = ADAPTERS[type(model).__name__]
    arms = [replace(configs[0], sparsity=0.0), *configs] if configs else [SparseConfig(sparsity=0)]
    inputs = random_inputs(model, work.latents, work.text_tokens)
    layout = _layout(model, adapter, inputs, work)
    timer = PartTimer(work.device)
    with (
        torch.no_grad(),
        _installed(model, adapter, PhasedAttention(timer, layout, arms[0])) as attention,
    ):
        timer.watch(model, adapter.self_attention)
        try:
            runs = _rounds(model, inputs, attention, arms, seconds, progress)
        finally:
            timer.remove()
    run = len(layer_names(model, adapter.self_attention))
    measured = tuple(
        sorted(each, key=lambda arm: arm.seconds)[(len(each) - 1) // 2] for each in runs
    )
    measured = tuple(
        replace(arm, seconds_of_all=tuple(other.seconds for other in each))
        for arm, each in zip(measured, runs, strict=True)
    )
    return StepProfile(measured, work.architecture.layers, run, cut, layout)


def _layout(
    model: nn.Module, adapter: ModelAdapter, inputs: Mapping[str, Any], work: Workload
) -> TokenLayout:
    tokens = work.tokens + (work.text_tokens if adapter.text != "none" else 0)
    layout = adapter.layout(adapter.grids(model.config, inputs), tokens)
    if layout is None or layout.text_tokens != tokens - work.tokens:
        raise UnsupportedLayout(
            f"the latent grid of {type(model).__name__} is not {work.tokens} tokens"
        )
    return layout


@contextmanager
def _installed(
    model: nn.Module, adapter: ModelAdapter, attention: PhasedAttention
) -> Iterator[PhasedAttention]:
    number, before = register(attention), {}
    for name, module in model.named_modules():
        if adapter.self_attention.fullmatch(name) and hasattr(module, "processor"):
            before[module] = module.processor
            module.processor = intercepted(
                module.processor, number, len(before) - 1, adapter.functions
            )
    try:
        yield attention
    finally:
        for module, processor in before.items():
            module.processor = processor


def _rounds(
    model: nn.Module,
    inputs: Mapping[str, Any],
    attention: PhasedAttention,
    arms: Sequence[SparseConfig],
    seconds: float,
    progress: Progress | None,
) -> list[list[Arm]]:
    """The timed passes of each arm."""
    runs: list[list[Arm]] = [[] for _ in arms]
    passes, begin, round_seconds = (MOST_REPEATS + 1) * len(arms), time.perf_counter(), 0.0
    for repeat in range(MOST_REPEATS + 1):
        spent = time.perf_counter() - begin
        if repeat > 1 and spent + round_seconds > seconds:
            break
        for number, config in enumerate(arms):
            if progress is not None:
                progress("profiling", repeat * len(arms) + number, passes)
            attention.config = config
            arm = _timed(model, inputs, attention)
            if repeat > 0:
                runs[number].append(arm)
        round_seconds = time.perf_counter() - begin - spent
    return runs


def _timed(model: nn.Module, inputs: Mapping[str, Any], attention: PhasedAttention) -> Arm:
    device = attention.timer.device
    synchronize(device)
    begin = time.perf_counter()
    model(**inputs)
    synchronize(device)
    seconds = time.perf_counter() - begin
    sparsity, kept = attention.config.sparsity, attention.kept
    density = kept.density if sparsity > 0 and kept is not None else 1.0
    parts = attention.timer.take()
    return Arm(sparsity, attention.kernel, density, seconds, parts, ())
