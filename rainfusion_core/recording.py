"""Keeps copies of chosen attention calls while a model runs."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from torch import Tensor

from rainfusion_core.layout import TokenLayout


@dataclass(frozen=True, eq=False)
class CapturedCall:
    """One self-attention call, in the model's own token order.

    Attributes:
        q, k, v: (batch, heads, tokens, head_dim) on the CPU, in the dtype of the call.
        scale: factor on the logits.
        key_lengths: (batch,) int64, keys that are not padding, or None for all.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    layout: TokenLayout
    scale: float
    step: int
    branch: str
    transformer: str
    layer: int
    key_lengths: Tensor | None = None


class Enough(Exception):
    """Everything wanted is there: the rest of the render would be for nothing."""


@dataclass
class Recorder:
    """Keeps the calls of chosen layers and steps of one guidance branch.

    Attributes:
        layers, steps: counted from 0; None keeps all of them.
        branch: "cond", "uncond", or None for every branch.
        stops: end the render after the last of `steps`.
    """

    layers: Collection[int] | None = None
    steps: Collection[int] | None = None
    branch: str | None = "cond"
    stops: bool = False
    calls: list[CapturedCall] = field(default_factory=list)

    def see(self, call: CapturedCall) -> None:
        """Keep a copy of a call if it is wanted."""
        if self.stops and self.steps is not None and call.step > max(self.steps):
            raise Enough
        # a pipeline that runs both branches as one batch names neither
        wanted = self.branch in (None, call.branch) or call.branch not in ("cond", "uncond")
        wanted &= self.layers is None or call.layer in self.layers
        if wanted and (self.steps is None or call.step in self.steps):
            self.calls.append(_copied(call))


def _copied(call: CapturedCall) -> CapturedCall:
    q, k, v = (x.detach().to("cpu", copy=True).contiguous() for x in (call.q, call.k, call.v))
    lengths = None if call.key_lengths is None else call.key_lengths.to("cpu", copy=True)
    return replace(call, q=q, k=k, v=v, key_lengths=lengths)
