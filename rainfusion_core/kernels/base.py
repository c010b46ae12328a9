"""The contract of a kernel."""

from typing import Protocol

from torch import Tensor

from rainfusion_core.blocks import KeptBlocks


class Kernel(Protocol):
    """Attention over kept blocks. Every kernel agrees with `kernels.reference.attention`."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kept: KeptBlocks,
        *,
        scale: float | None = None,
        key_lengths: Tensor | None = None,
    ) -> Tensor: ...
