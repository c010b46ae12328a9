"""The state of one generation: where the denoising loop is, what each call did, and what that adds up to."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.absence import LEFT_OUT
from rainfusion_core.adapters import ModelAdapter
from rainfusion_core.attention import sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.kernels import choose_kernel
from rainfusion_core.kernels.dense import DENSE_KERNELS, choose_dense
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.masks import key_lengths_of, without_padding
from rainfusion_core.recording import CapturedCall, Recorder
from rainfusion_core.report import AttentionSpeed, CallRow, SparsityReport
from rainfusion_core.schedule import Schedule, plan
from rainfusion_core.selectors import SELECTORS, Memory
from rainfusion_core.sink import FirstFrame, first_frame
from rainfusion_core.speed import attention_speed
from rainfusion_core.timing import Span
from rainfusion_core.worthwhile import least_tokens


@dataclass(frozen=True)
class Layer:
    """One self-attention layer of a session."""

    transformer: str
    index: int
    name: str


@dataclass
class _Call:
    """One attention call. `kept` stays on its device until the report is asked for."""

    step: int
    branch: str
    layer: Layer
    reason: str | None
    kept: Tensor | int
    pairs: int
    span: Span


@dataclass
class _Forward:
    """The transformer forward pass that is running."""

    adapter: ModelAdapter
    grids: tuple[LatentGrid, ...]
    step: int
    branch: str
    schedule: Schedule
    seen: set[int] = field(default_factory=set)  # layers of which a call came
    silent: dict[int, bool] = field(default_factory=dict)  # ran without a call: whether on purpose
    layouts: dict[int, TokenLayout | None] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)
    mask: Tensor | None = None
    understood: tuple[Tensor | None, str | None] = (None, None)


@dataclass
class Session:
    """Computes every caught attention call, and remembers what it did.

    Attributes:
        layers: all self-attention layers, in the order of execution.
        measures_speed: time one sparse call against the dense kernel while the model runs.
        recorder: sees every call that the core understands, before it is computed.
    """

    config: SparseConfig
    layers: list[Layer] = field(default_factory=list)
    measures_speed: bool = False
    recorder: Recorder | None = None
    speed: AttentionSpeed | None = None
    speed_seconds: float = 0.0
    kernel: str = ""
    dense_kernel: str = ""
    first_frame: FirstFrame | None = None
    _calls: list[_Call] = field(default_factory=list)
    _absent: Counter[str] = field(default_factory=Counter)  # layers without a call, by reason
    _forward: _Forward | None = None
    _memories: dict[Any, Memory] = field(default_factory=dict)

    def begin_forward(
        self,
        adapter: ModelAdapter,
        grids: tuple[LatentGrid, ...],
        *,
        step: int,
        steps: int,
        branch: str,
        layers: int,
    ) -> None:
        """A transformer with `layers` self-attention layers is about to run."""
        schedule = plan(self.config, steps=steps, layers=layers)
        if self._forward is not None and step < self._forward.step:
            self._memories.clear()  # another run of the loop
        self._forward = _Forward(adapter, grids, step, branch, schedule)

    def end_forward(self, layers: range, reason_of: Callable[[int, bool | None], str]) -> None:
        """The forward pass has run. Count the layers of which no call came, or refuse them.

        Args:
            layers: indices into `layers` of those that it has.
            reason_of: (layer, None if its processor did not run, else whether it was told not to
                attend) -> why there was no call.
        """
        forward = self._forward
        if forward is None:  # cleared meanwhile
            return
        for layer in layers:
            if layer in forward.seen:
                continue
            reason = reason_of(layer, forward.silent.get(layer))
            if self.config.strict and reason != LEFT_OUT:
                where = self.layers[layer]
                raise UnsupportedLayout(
                    f"{where.name} of {where.transformer} made no attention call: {reason}",
                    hint="leave --strict out to have it counted",
                )
            self._absent[reason] += 1

    def clear(self) -> None:
        """Forget all calls: a new render begins."""
        self._calls.clear()
        self._memories.clear()
        self._forward, self.speed, self.speed_seconds = None, None, 0.0
        self.first_frame = None
        self._absent.clear()

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        """Attention of one call, sparse where the schedule and the layout allow it.

        Args:
            layer: index into `layers`.
            q, k, v: (batch, heads, tokens, head_dim).
            mask: as diffusers passes it; padding masks are understood, others run dense.
        """
        layout = self._layout(q.shape[-2])
        lengths, refusal = self._key_lengths(mask, layout, q.shape[0])
        refusal = "the grids do not explain the tokens" if layout is None else refusal
        if refusal is not None:
            return self._fall_back(layer, q, k, v, mask, scale, refusal)
        assert self._forward is not None and layout is not None
        where = self.layers[layer]
        if self.recorder is not None:
            now, branch = self._forward.step, self._forward.branch
            self.recorder.see(
                CapturedCall(
                    q, k, v, layout, scale, now, branch, where.transformer, where.index, lengths
                )
            )
        reason = self._forward.schedule.dense_reason(self._forward.step, where.index)
        reason = reason or self._not_worthwhile(q, layout)
        if reason is not None:
            k, v, mask = without_padding(k, v, mask, lengths, layout)
            return self._dense(layer, q, k, v, mask, scale, reason)
        self.kernel = self._kernel(q)
        if self.first_frame is None:
            complete = SELECTORS[self.config.method].complete(self.config)
            self.first_frame = first_frame(layout, complete)
        if self.measures_speed and self.speed is None and where.index >= self._middle(where):
            self._measure(q, k, v, layout, scale)
        memory = self._memory(layer, q)
        span = Span(q.device)
        out, kept = sparse_attention(
            q, k, v, layout, self.config, scale=scale, key_lengths=lengths, memory=memory
        )
        self._record(layer, None, kept.kept_pairs, kept.pairs, span)
        return out

    def left_dense(self, layer: int, q: Tensor, reason: str) -> None:
        """Record a call that diffusers computes itself; (batch, heads, tokens, head_dim)."""
        self._refuse(reason)
        pairs = self._pairs(q)
        self._record(layer, reason, pairs, pairs, Span(q.device))

    def made_no_call(self, layer: int, on_purpose: bool) -> None:
        """The processor of a layer ran without attending, because it was told so or elsewhere."""
        if self._forward is not None:
            self._forward.silent[layer] = on_purpose

    def report(self) -> SparsityReport:
        """What all calls since `clear` add up to. Waits for the device."""
        rows = [
            CallRow(
                step=call.step,
                branch=call.branch,
                transformer=call.layer.transformer,
                layer=call.layer.index,
                reason=call.reason,
                kept_pairs=int(call.kept),
                pairs=call.pairs,
                seconds=call.span.seconds,
            )
            for call in self._calls
        ]
        return SparsityReport(
            requested=self.config.sparsity,
            rows=tuple(rows),
            kernel=self.kernel,
            dense_kernel=self.dense_kernel,
            speed=self.speed,
            absent_by_reason=dict(self._absent),
            first_frame=self.first_frame,
        )

    def _kernel(self, q: Tensor) -> str:
        """Name of the sparse kernel for such a call."""
        call = (q.device, q.dtype, q.shape[-1], self.config.block_size)
        return choose_kernel(self.config.kernel, *call)[0]

    def _not_worthwhile(self, q: Tensor, layout: TokenLayout) -> str | None:
        """Why dense is faster for this call on this machine; a kernel asked for by name runs."""
        if self.config.kernel != "auto":
            return None
        kernel = self._kernel(q)
        needed = least_tokens(self.config, layout, q.device, kernel, q.dtype, q.shape[-1])
        return None if q.shape[-2] >= needed else f"sparse pays from {needed:.0f} tokens on"

    def _layout(self, tokens: int) -> TokenLayout | None:
        forward = self._forward
        if forward is None:
            return None
        if tokens not in forward.layouts:
            forward.layouts[tokens] = forward.adapter.layout(forward.grids, tokens)
        return forward.layouts[tokens]

    def _key_lengths(
        self, mask: Tensor | None, layout: TokenLayout | None, batch: int
    ) -> tuple[Tensor | None, str | None]:
        """What a mask says. The layers of a forward pass share one, so it is read once."""
        forward = self._forward
        if forward is None or mask is None or layout is None:
            return None, None
        if forward.mask is not mask:
            forward.mask = mask
            forward.understood = key_lengths_of(mask, layout, batch=batch)
        return forward.understood

    def _memory(self, layer: int, q: Tensor) -> Memory:
        """What this layer remembers of earlier steps of this guidance branch."""
        assert self._forward is not None
        forward = self._forward
        forward.calls[layer] += 1  # Mochi calls once for every batch item
        key = (layer, forward.branch, forward.calls[layer], tuple(q.shape))
        memory = self._memories.setdefault(key, Memory())
        memory.step, memory.steps = forward.step, forward.schedule.steps
        memory.layer = self.layers[layer].index
        return memory

    def _middle(self, where: Layer) -> int:
        return max(x.index for x in self.layers if x.transformer == where.transformer) // 2

    def _fall_back(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, reason: str
    ) -> Tensor:
        self._refuse(reason)
        return self._dense(layer, q, k, v, mask, scale, reason)

    def _refuse(self, reason: str) -> None:
        if self.config.strict:
            raise UnsupportedLayout(
                f"an attention call would run dense: {reason}",
                hint="leave --strict out to let it run dense and have it counted",
            )

    def _dense(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, reason: str
    ) -> Tensor:
        span = Span(q.device)
        if mask is not None:
            out = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=scale
            )
        else:
            self.dense_kernel = choose_dense(self.config.dense_kernel, q, k, v)
            out = DENSE_KERNELS[self.dense_kernel](q, k, v, scale=scale)
        pairs = self._pairs(q)
        self._record(layer, reason, pairs, pairs, span)
        return out

    def _pairs(self, q: Tensor) -> int:
        """Block pairs of a dense call, all heads."""
        blocks = -(-q.shape[-2] // self.config.block_size)
        return q.shape[0] * q.shape[1] * blocks * blocks

    def _record(
        self, layer: int, reason: str | None, kept: Tensor | int, pairs: int, span: Span
    ) -> None:
        step, branch = (self._forward.step, self._forward.branch) if self._forward else (0, "")
        if self._forward:
            self._forward.seen.add(layer)
        self._calls.append(
            _Call(step, branch, self.layers[layer], reason, kept, pairs, span.stop())
        )

    def _measure(self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, scale: float) -> None:
        span = Span(q.device)
        self.speed = attention_speed(q, k, v, layout, self.config, scale=scale)
        self.dense_kernel = self.dense_kernel or self.speed.dense_kernel
        self.speed_seconds += span.stop().seconds
