"""Keep whole tiles of the video in a window around the query's own tile.

Source: Sliding Tile Attention, arXiv 2502.04507, and the code of FastVideo: tiles of 6 x 8 x 8 tokens, and
at the sides the window is shifted, not cut. Differs: one window for all heads, the most even one among
those whose density is nearest to what is asked for, unless the option `window` names it (there a search
over prompts gives each head of each step its own); nothing is padded, so tiles at the sides may be
smaller, and a pair of blocks is kept if any of their tiles are. Another order of cells is another tile.
"""

from itertools import product

import torch
from torch import Tensor

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.order import TokenOrder, cell_of, token_places
from rainfusion_core.selection.choice import fixed
from rainfusion_core.selectors.base import AUTO, Method


def mask(order: TokenOrder, config: SparseConfig) -> Tensor:
    """(query_blocks, key_blocks) bool on the device of the order."""
    cell = cell_of(order.name)
    assert cell is not None
    places = token_places(order)
    places[:, 0] -= int(order.sink_tokens > 0)  # tiles begin behind the sink
    tiles, tile_of = (places.div(torch.tensor(cell), rounding_mode="floor")).unique(
        dim=0, return_inverse=True
    )
    member = torch.zeros(order.blocks, len(tiles))
    member[torch.arange(order.tokens) // order.block_size, tile_of] = 1
    member[:, tiles[:, 0] < 0] = 0  # text and sink
    window = cell_of(str(config.options["window"]))
    windows = _windows(tiles) if window is None else [window]
    masks = [(member @ _tile_mask(tiles, each).float() @ member.T) > 0 for each in windows]
    return _nearest(masks, order, config).to(order.pinned.device)


def _tile_mask(tiles: Tensor, window: tuple[int, ...]) -> Tensor:
    """(tiles, tiles) bool: whether the key's tile is in the window of the query's."""
    inside = torch.ones(len(tiles), len(tiles), dtype=torch.bool)
    for axis, size in enumerate(window):
        at, half = tiles[:, axis], size // 2
        last = int(at.max())
        middle = at.clamp(min=0).clamp(max=max(last - half, 0)).clamp(min=min(half, last))
        inside &= (middle[:, None] - at).abs() <= half
    return inside


def _windows(tiles: Tensor) -> list[tuple[int, ...]]:
    """Every window of odd sides, in tiles; the ones with the most even sides first."""
    counts = [int(last) + 1 for last in tiles.amax(dim=0)]
    sides = [range(1, 2 * (count // 2) + 2, 2) for count in counts]
    shares = [
        [min(1.0, s / count) for s in each] for each, count in zip(sides, counts, strict=True)
    ]
    by_window = dict(zip(product(*sides), product(*shares), strict=True))
    return sorted(by_window, key=lambda window: max(by_window[window]) - min(by_window[window]))


def _nearest(masks: list[Tensor], order: TokenOrder, config: SparseConfig) -> Tensor:
    """The mask whose share of pairs is nearest to `1 - sparsity`, pinned ones counted if "total"."""
    pinned = order.pinned.cpu()
    anyway = (pinned | pinned[:, None]) & (config.budget == "total")
    shares = [float((mask | anyway).float().mean()) for mask in masks]
    wanted = 1 - config.sparsity
    best = min(range(len(masks)), key=lambda number: round(abs(shares[number] - wanted), 4))
    return masks[best]


def check(config: SparseConfig) -> None:
    if cell_of(config.order) is None:
        raise ConfigError(
            f"method sliding-tile needs an order of cells, order is {config.order!r}",
            hint="as in --order 6x8x8",
        )
    window = str(config.options["window"])
    if window != AUTO and cell_of(window) is None:
        raise ConfigError(
            f"method option window must be tiles of time, height and width, got {window!r}",
            hint="as in window=3x3x5",
        )


METHOD = Method(
    select=fixed(mask), order="6x8x8", static=True, options={"window": AUTO}, check=check
)
