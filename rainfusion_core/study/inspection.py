"""What the core does inside one attention call, as plain arrays: block maps, kept tokens, fine attention maps."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rainfusion_core.blocks import kept_mask
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid
from rainfusion_core.order import TokenOrder
from rainfusion_core.recording import CapturedCall
from rainfusion_core.selection.heads import TYPES, head_types
from rainfusion_core.selection.mass import block_mass, recall
from rainfusion_core.selectors import SELECTORS, Call, Memory

QUERY, KEPT = 2, 1  # values of a covering
FIFTH = 0.2


@dataclass(frozen=True, eq=False)
class HeadView:
    """One head of one call; block maps are (query_blocks, key_blocks), in the method's order.

    Attributes:
        mass: true share of each row's attention, float32.
        kept: bool.
        fine: (parts, parts) float32, attention in the model's own order, in runs of equally many
            tokens: here stripes and diagonals can be seen.
        covering: (frames, height, width) uint8 for the tokens of the grid: `QUERY` in the query
            block, `KEPT` in a kept key block, else 0.
        kind: type of the head, one of `heads.TYPES`.
        top_fifth: attention that the best fifth of the key blocks hold, mean over query blocks.
    """

    step: int
    layer: int
    head: int
    mass: np.ndarray
    kept: np.ndarray
    fine: np.ndarray
    covering: np.ndarray
    kind: str
    recall: float
    density: float
    top_fifth: float


def views(
    call: CapturedCall, config: SparseConfig, *, token: tuple[int, int, int], steps: int = 0
) -> list[HeadView]:
    """Every head of a call's first batch item.

    Args:
        token: (frame, row, column) of the first latent grid; its block is the query block.
        steps: of the run that the call was captured in.

    Raises:
        ConfigError: there is no such token.
    """
    grid, first = _first_grid(call)
    place = _place(grid, token) + first
    method = SELECTORS[config.method]
    complete = method.complete(config)
    memory = Memory(step=call.step, steps=steps, layer=call.layer)
    prepared = Call(call.layout, complete, call.scale, call.key_lengths, memory)
    order = method.ordered(call.q, call.k, prepared)
    q, k = order.permute(call.q), order.permute_keys(call.k)
    mask = kept_mask(method.select(q, k, order, prepared))
    mass = block_mass(q, k, order.block_size, scale=call.scale, key_lengths=call.key_lengths)
    recalls = recall(mass, mask, call.q.shape[-2], order.block_size)[0]
    fine = _fine(call, grid)
    kinds = head_types(call.q[:1], call.k[:1], call.layout, scale=call.scale).kinds[0]
    return [
        HeadView(
            step=call.step,
            layer=call.layer,
            head=head,
            mass=mass[0, head].numpy(),
            kept=mask[0, head].numpy(),
            fine=fine[head].numpy(),
            covering=_covering(order, mask[0, head], head, place, grid, first),
            kind=TYPES[int(kinds[head])],
            recall=float(recalls[head]),
            density=float(mask[0, head].float().mean()),
            top_fifth=top_share(mass[0, head], FIFTH),
        )
        for head in range(call.q.shape[1])
    ]


def top_share(mass: Tensor, share: float) -> float:
    """Mass of (query_blocks, key_blocks) in the best `share` of each row's blocks, rounded up; mean over rows."""
    count = math.ceil(share * mass.shape[-1])
    return float((mass.topk(count, -1).values.sum(-1) / mass.sum(-1)).mean())


def _first_grid(call: CapturedCall) -> tuple[LatentGrid, int]:
    """The first latent grid and the place of its first token."""
    before = 0
    for segment in call.layout.segments:
        if isinstance(segment, LatentGrid):
            return segment, before
        before += segment.tokens
    raise ConfigError("this attention holds no latent grid")


def _place(grid: LatentGrid, token: tuple[int, int, int]) -> int:
    sizes = (grid.frames, grid.height, grid.width)
    if not all(0 <= at < size for at, size in zip(token, sizes, strict=True)):
        raise ConfigError(
            f"--query must lie in the grid of {sizes[0]} x {sizes[1]} x {sizes[2]} tokens, got "
            f"{','.join(map(str, token))}",
            hint="frame, row and column, counted from 0",
        )
    frame, row, column = token
    return (frame * grid.height + row) * grid.width + column


def _fine(call: CapturedCall, grid: LatentGrid) -> Tensor:
    """(heads, parts, parts): a part is a row of the grid, or more where there are over 200 rows."""
    rows = -(-call.q.shape[-2] // grid.width)
    size = grid.width * -(-rows // 200)
    return block_mass(call.q[:1], call.k[:1], size, scale=call.scale)[0]


def _covering(
    order: TokenOrder, mask: Tensor, head: int, place: int, grid: LatentGrid, first: int
) -> np.ndarray:
    size = order.block_size
    restore = order.restore if order.restore.ndim == 1 else order.restore[0, head]
    queries = order.gather if order.gather.ndim == 1 else order.gather[0, head]
    keys = queries if order.keys is None else order.keys[0, head % order.keys.shape[1]]
    block = int(restore[place]) // size
    covering = torch.zeros(order.tokens, dtype=torch.uint8)
    covering[keys[mask[block].repeat_interleave(size)[: order.tokens]]] = KEPT
    covering[queries[block * size : (block + 1) * size]] = QUERY
    own = covering[first : first + grid.tokens]
    return own.view(grid.frames, grid.height, grid.width).numpy()
