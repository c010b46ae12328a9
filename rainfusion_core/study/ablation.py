"""Asks variants of the core, on one captured call, how much attention they keep, how wrong they are, what they cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from rainfusion_core.attention import sparse_attention
from rainfusion_core.blocks import KeptBlocks, kept_mask
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.kernels.dense import DENSE_KERNELS, choose_dense
from rainfusion_core.order import TokenOrder
from rainfusion_core.recording import CapturedCall
from rainfusion_core.selection.mass import (
    best_recall,
    block_mass,
    rank_correlation,
    recall,
    relative_error,
)
from rainfusion_core.selectors import SELECTORS, Call, Memory
from rainfusion_core.selectors.base import OWN
from rainfusion_core.timing import Span, synchronize

TRIES = 6  # steps of the search for a density


@dataclass(frozen=True)
class Variant:
    """One way to choose blocks.

    Attributes:
        density: share of block pairs to keep; the configuration's sparsity, or its mass target,
            is moved until the achieved density is as near to it as it gets. None: as configured.
        output: also compute the attention, for its error and its time.
    """

    name: str
    config: SparseConfig
    density: float | None = None
    output: bool = True


class _Choice(NamedTuple):
    """What a method chose: q and k are in `order`, `predict_ms` is what finding it all took."""

    config: SparseConfig
    order: TokenOrder
    kept: KeptBlocks
    q: Tensor
    k: Tensor
    predict_ms: float


@dataclass(frozen=True)
class Outcome:
    """What one variant did with one call.

    Attributes:
        density: kept pairs over all pairs, measured.
        recall: share of all softmax mass that kept pairs hold, mean over heads and queries.
        best_recall: what the best choice of as many blocks in every row of the same order holds.
        rank_correlation: Spearman's, of predicted scores and true mass; None without scores.
        error: relative Euclidean error of the output; None where no output was asked for.
        predict_ms: what the method takes to find its order and its blocks, on this machine: of a
            static method in a later call than its first, of one that searches now and then in a
            call in which it does.
        attention_ms: the whole call of `sparse_attention`; None as the error.
        dense_ms: the dense kernel on the same call; None as the error.
        unsupported: why the variant cannot take this call; the numbers are 0 then.
    """

    density: float = 0.0
    recall: float = 0.0
    best_recall: float = 0.0
    rank_correlation: float | None = None
    error: float | None = None
    predict_ms: float = 0.0
    attention_ms: float | None = None
    dense_ms: float | None = None
    unsupported: str | None = None


@dataclass
class Examination:
    """One captured call, and what all variants share about it."""

    call: CapturedCall
    steps: int = 0
    _masses: dict[tuple, Tensor] = field(default_factory=dict)
    _dense: tuple[Tensor, float] | None = None

    def examine(self, variant: Variant) -> Outcome:
        """What the variant does with the call."""
        try:
            choice = self._at_density(variant)
            if SELECTORS[variant.config.method].static:
                # made once for a layout: what a run pays is what a later call does
                choice = self._choose(choice.config)
        except UnsupportedLayout as error:
            return Outcome(unsupported=str(error))
        tokens, size = self.call.q.shape[-2], choice.config.block_size
        mass, mask = self._mass(choice), kept_mask(choice.kept)
        found = Outcome(
            density=choice.kept.density,
            recall=float(recall(mass, mask, tokens, size).mean()),
            best_recall=float(best_recall(mass, mask, tokens, size).mean()),
            rank_correlation=self._correlation(choice, mass),
            predict_ms=choice.predict_ms,
        )
        return self._with_output(found, choice) if variant.output else found

    def _with_output(self, found: Outcome, choice: _Choice) -> Outcome:
        call = self.call
        run = partial(
            sparse_attention, call.q, call.k, call.v, call.layout, choice.config,
            scale=call.scale, key_lengths=call.key_lengths, memory=self._memory(),
        )  # fmt: skip
        (out, _), attention_ms = _timed(call.q.device, run)
        dense, dense_ms = self._dense_output(choice.config)
        error = relative_error(out, dense)
        return replace(found, error=error, attention_ms=attention_ms, dense_ms=dense_ms)

    def _memory(self) -> Memory:
        return Memory(step=self.call.step, steps=self.steps, layer=self.call.layer)

    def _prepared(self, config: SparseConfig) -> Call:
        call = self.call
        complete = SELECTORS[config.method].complete(config)
        return Call(call.layout, complete, call.scale, call.key_lengths, self._memory())

    def _choose(self, config: SparseConfig) -> _Choice:
        method, prepared = SELECTORS[config.method], self._prepared(config)
        call, device = self.call, self.call.q.device
        order, arrange_ms = _timed(device, lambda: method.ordered(call.q, call.k, prepared))
        q, k = order.permute(call.q), order.permute_keys(call.k)
        kept, select_ms = _timed(device, lambda: method.select(q, k, order, prepared))
        return _Choice(config, order, kept, q, k, arrange_ms + select_ms)

    def _at_density(self, variant: Variant) -> _Choice:
        """The choice whose achieved density is within half a block a row of the wanted one.

        Where there is none, as methods with few choices have it, the nearest one that was tried.
        """
        config, best = variant.config, self._choose(_started(variant))
        if variant.density is None:
            return best
        knob = "sparsity" if config.mass is None else "mass"
        value = getattr(best.config, knob)
        low, high, choice = 0.0, 1.0, best
        for _ in range(TRIES):
            distance = choice.kept.density - variant.density
            if abs(distance) < abs(best.kept.density - variant.density):
                best = choice
            if abs(distance) <= 0.5 / choice.kept.key_blocks + 1e-6:
                break
            too_sparse = distance < 0 if knob == "sparsity" else distance > 0
            low, high = (low, value) if too_sparse else (value, high)
            value = (low + high) / 2
            choice = self._choose(replace(config, **{knob: value}))  # type: ignore[arg-type]
        return best

    def _mass(self, choice: _Choice) -> Tensor:
        call, config = self.call, choice.config
        exact = partial(
            block_mass, choice.q, choice.k, config.block_size,
            scale=call.scale, key_lengths=call.key_lengths,
        )  # fmt: skip
        complete = SELECTORS[config.method].complete(config)
        if complete.order == OWN:
            return exact()
        key = (complete.order, choice.order.sink_tokens, complete.block_size)
        if key not in self._masses:
            self._masses[key] = exact()
        return self._masses[key]

    def _dense_output(self, config: SparseConfig) -> tuple[Tensor, float]:
        """The dense kernel's output and milliseconds; with padding the sparse kernel's, keeping all."""
        if self._dense is None:
            call = self.call
            q, k, v, scale = call.q, call.k, call.v, call.scale
            if call.key_lengths is None:
                kernel = DENSE_KERNELS[choose_dense(config.dense_kernel, q, k, v)]
                run = partial(kernel, q, k, v, scale=scale)
            else:
                run = partial(_dense_with_padding, call, config)
            self._dense = _timed(q.device, run)
        return self._dense

    def _correlation(self, choice: _Choice, mass: Tensor) -> float | None:
        config, method = choice.config, SELECTORS[choice.config.method]
        if method.scores is None:
            return None
        scores = method.scores(choice.q, choice.k, choice.order, self._prepared(config))
        found = rank_correlation(scores, mass)
        return None if found.isnan().all() else float(found.nanmean())


def _started(variant: Variant) -> SparseConfig:
    """The configuration that is tried first."""
    config = variant.config
    if variant.density is None or config.mass is not None:
        return config
    return replace(config, sparsity=1 - variant.density)


def _dense_with_padding(call: CapturedCall, config: SparseConfig) -> Tensor:
    everything = replace(
        config, method="rainfusion2", order="auto", sparsity=0.0, mass=None, options={}
    )
    out, _ = sparse_attention(
        call.q, call.k, call.v, call.layout, everything, scale=call.scale, key_lengths=call.key_lengths
    )  # fmt: skip
    return out


def _timed(device: torch.device, run: Callable):  # type: ignore[no-untyped-def]
    """What `run` returns, and its milliseconds."""
    synchronize(device)
    span = Span(device)
    result = run()
    return result, 1e3 * span.stop().seconds


def examine(
    call: CapturedCall, variants: Sequence[Variant], *, steps: int = 0
) -> Iterator[tuple[Variant, Outcome]]:
    """Every variant with its outcome, as soon as it is there.

    Args:
        steps: of the run that the call was captured in.
    """
    examination = Examination(call, steps)
    for variant in variants:
        yield variant, examination.examine(variant)
