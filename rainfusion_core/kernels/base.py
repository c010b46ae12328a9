"""The contract of a kernel."""

from typing import Protocol

from torch import Tensor

from rainfusion_core.blocks import KeptBlocks


class Kernel(Protocol):
    """Attention over kept blocks. Every kernel agrees with `kernels.reference.attention`.

    `lse`, where given, is written: (batch, heads, queries) float32, contiguous, on the device of
    `q`. It is the natural logarithm of the softmax's denominator, from which two attentions over
    disjoint keys are merged exactly; -inf for a query without a key.
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kept: KeptBlocks,
        *,
        scale: float | None = None,
        key_lengths: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor: ...
