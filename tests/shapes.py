"""Attention shapes that kernel tests share, each with an id that says why it is there."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks, kept_from_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Shape(NamedTuple):
    batch: int
    heads: int
    kv_heads: int
    tokens: int
    head_dim: int
    block_size: int

    @property
    def blocks(self) -> int:
        return -(-self.tokens // self.block_size)

    def qkv(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        sizes = [
            (self.batch, h, self.tokens, self.head_dim) for h in (self.heads, *[self.kv_heads] * 2)
        ]
        return [torch.randn(size, device=DEVICE).to(dtype) for size in sizes]

    def kept(self, density: float) -> KeptBlocks:
        """A random choice in which the first row keeps nothing, the second one block, and the last all."""
        mask = torch.rand(self.batch, self.heads, self.blocks, self.blocks, device=DEVICE) < density
        if 0 < density < 1:
            mask[..., :2, :] = False
            mask[..., 1:2, torch.randint(self.blocks, ())] = True
            mask[..., 0, :], mask[..., -1, :] = False, True
        return kept_from_mask(mask, self.block_size)

    def lengths(self) -> Tensor:
        """Padding of another length in each batch item; the last item has none."""
        return torch.linspace(self.tokens // 3, self.tokens, self.batch + 1, device=DEVICE)[
            1:
        ].long()


def case(why: str, *shape: int):
    sizes = "-".join(f"{name}{size}" for name, size in Shape(*shape)._asdict().items())
    return pytest.param(Shape(*shape), id=f"{why}-{sizes}")


SHAPES = [
    case("aligned", 1, 2, 2, 64, 16, 16),
    case("ragged", 1, 1, 1, 75, 16, 16),
    case("one-block", 1, 1, 1, 9, 16, 16),
    case("batched", 2, 3, 3, 50, 32, 16),
    case("grouped-heads", 2, 4, 2, 70, 16, 32),
    case("odd-head-dim", 1, 2, 2, 40, 24, 16),
]
FULL_SIZE = [
    case("wan", 1, 1, 1, 300, 128, 128),
    case("cogvideox", 1, 2, 2, 260, 64, 128),
    case("allegro", 1, 1, 1, 270, 96, 128),
]
