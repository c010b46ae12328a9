"""Queries and keys of heads that look where a type of head looks."""

import torch
from torch import Tensor

from rainfusion_core.layout import Text, TokenLayout


def looking(layout: TokenLayout, *kinds: str) -> list[Tensor]:
    """q, k (1, heads, tokens, width): into the own frame, to the own place in all frames, or elsewhere.

    The layout has one grid and may have text before or behind it. Attention to these is nearly all.
    """
    (grid,) = layout.grids
    size = grid.height * grid.width
    frame, place = torch.arange(grid.tokens) // size, torch.arange(grid.tokens) % size
    heads: list[tuple[Tensor, Tensor]] = []
    for kind in kinds:
        far = torch.randperm(size)
        queries, keys = {
            "spatial": (frame, frame),
            "temporal": (place, place),
            "textural": (place, far[place]),
        }[kind]
        one_hot = [
            torch.nn.functional.one_hot(x, size + grid.frames).float() for x in (queries, keys)
        ]
        heads.append((one_hot[0] * 30, one_hot[1]))
    text = torch.zeros(layout.text_tokens, size + grid.frames)
    first = isinstance(layout.segments[0], Text)
    return [
        torch.stack([torch.cat([text, h[side]] if first else [h[side], text]) for h in heads])[None]
        for side in (0, 1)
    ]
