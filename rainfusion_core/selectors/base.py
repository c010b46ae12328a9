"""The contract of a selector."""

from typing import Protocol

from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.order import TokenOrder


class Selector(Protocol):
    """Chooses key blocks for every query block, from q and k that are already in `order`."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        order: TokenOrder,
        *,
        sparsity: float,
        budget: str = "paper",
        key_lengths: Tensor | None = None,
    ) -> KeptBlocks: ...
