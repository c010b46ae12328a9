"""Tokens that stay where the model has them: what kernels share which gather queries and keys."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from rainfusion_core.blocks import KeptBlocks

# `rows` and `key_rows` of a `Kernel`
Places = tuple[Tensor | None, Tensor | None]
Pair = tuple[Tensor, Tensor]  # keys and values


def head_by_head(
    kernel: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: KeptBlocks,
    lse: Tensor | None,
    places: Places,
    **settings: Any,
) -> Tensor:
    """`kernel` for one key head after the other, since it copies all its arguments into float32."""
    out, shared = torch.empty_like(q), q.shape[1] // k.shape[1]
    for head in range(k.shape[1]):
        keys, queries = slice(head, head + 1), slice(head * shared, (head + 1) * shared)
        rows, key_rows = (
            x if x is None or x.ndim == 1 else x[:, part]
            for x, part in zip(places, (queries, keys), strict=True)
        )
        out[:, queries] = kernel(
            q[:, queries],
            k[:, keys],
            v[:, keys],
            replace(kept, index=kept.index[:, queries], count=kept.count[:, queries]),
            lse=None if lse is None else lse[:, queries],
            rows=rows,
            key_rows=key_rows,
            **settings,
        )
    return out


def lying(places: Tensor | None, b: int, h: int, tokens: slice) -> slice | Tensor:
    """Where some tokens of a head lie, `places` being the rows or the key rows of a `Kernel`."""
    if places is None:
        return tokens
    return places[tokens] if places.ndim == 1 else places[b, h, tokens]


def take(x: Tensor, at: slice | Tensor) -> Tensor:
    """Those of the tokens (tokens, ...); a slice gives a view, a tensor a copy."""
    return x[at] if isinstance(at, slice) else x.index_select(0, at)


def in_order(x: Tensor, places: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    """The heads of all batch items, (tokens, head_dim) each, contiguous, from `places` if there are any.

    Each is a tensor of its own, which fits where smaller things were before.
    """
    heads = product(range(x.shape[0]), range(x.shape[1]))
    if places is None:
        return [x[at].to(dtype).contiguous() for at in heads]
    return [
        x[at].index_select(0, places if places.ndim == 1 else places[at]).to(dtype) for at in heads
    ]
