"""Head types: whether a head looks into the frame, along time, or wherever the content is.

Source: RainFusion, arXiv 2505.21036, Adaptive Recognition Module, and the Ascend code of Wan 2.2 for
the sizes. Differs: of a large frame 256 queries are looked at, not all; the thresholds of paper
(0.9 in RainFusion+) and code (0.95) differ, so it is a parameter; the text is left out.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.layout import TokenLayout
from rainfusion_core.order import token_numbers
from rainfusion_core.selection.choice import exact
from rainfusion_core.selection.sampling import spread_places, token_weights

TYPES = ("spatial", "temporal", "textural")
SAMPLES = 256


@dataclass(frozen=True)
class HeadTypes:
    """What the module recognised.

    Attributes:
        kinds: (batch, heads) int64, index into `TYPES`.
        near: (batch, heads) share of the mass within a frame that stays near in that frame: high
            for heads that look at one place along time.
        own: (batch, heads) share of the mass of tokens spread over the video that stays near in
            the model's order: high for heads that look into their own and the next frames.
    """

    kinds: Tensor
    near: Tensor
    own: Tensor


@exact
def head_types(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    sparsity: float = 0.5,
    threshold: float = 0.9,
) -> HeadTypes:
    """The type of each head: temporal if `near` reaches the threshold, else spatial if `own` does.

    Args:
        q: (batch, heads, tokens, head_dim), in the model's order.
        k: (batch, key_heads, tokens, head_dim); key_heads divides heads.
        layout: the greatest of its grids is looked at, without the first frame if there are more.
        sparsity: of the band that counts as near; half of its width is 1 - sqrt(sparsity).
        threshold: share of the mass in that band, in (0, 1].
    """
    if not layout.grids:
        raise UnsupportedLayout("head types need a latent grid, the sequence holds only text")
    grid = max(token_numbers(layout)[0], key=lambda each: each.numel())
    rest = (grid[1:] if len(grid) > 1 else grid).to(q.device)
    near = _recall(q, k, rest[0].flatten(), scale, sparsity)
    own = _recall(q, k, rest.flatten()[:: len(rest)], scale, sparsity)
    kinds = torch.full_like(near, TYPES.index("textural"), dtype=torch.int64)
    kinds[own >= threshold] = TYPES.index("spatial")
    kinds[near >= threshold] = TYPES.index("temporal")
    return HeadTypes(kinds, near, own)


def _recall(q: Tensor, k: Tensor, tokens: Tensor, scale: float, sparsity: float) -> Tensor:
    """(batch, heads): mass of a band around the diagonal, among these tokens alone."""
    rows = spread_places(len(tokens), SAMPLES, q.device)
    weights = token_weights(
        q.index_select(-2, tokens), k.index_select(-2, tokens), rows, scale=scale
    )
    places = torch.arange(len(tokens), device=q.device)
    half = int(len(tokens) * (1 - sqrt(sparsity)))
    band = (places - rows[:, None]).abs() <= half
    return (weights * band).sum(-1).mean(-1)
