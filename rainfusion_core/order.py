"""Token orders: the permutation that makes neighbours in the sequence neighbours in the video.

Every order ends with the text, wherever the model keeps it, and is an exact bijection: nothing is
padded. "compact" is ours. "window" and "frame" are the two that are in public use, as they are.
"thw" and its likes walk the axes frame, row and column, the last one fastest. A name such as
"4x4x4" means cells of so many frames, rows and columns, whatever remains at the sides included.

Source: RainFusion2.0, arXiv 2512.24086, which names 3D windows without a size and moves the first
frame to the end. Differs: "compact" gives compact blocks on any grid, where public code leaves
strips beside its windows, or refuses.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from rainfusion_core import paths
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName, UnsupportedLayout
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.sink import first_frame, longest_video


@dataclass(frozen=True, eq=False)
class TokenOrder:
    """A permutation of one sequence, or one for every head, and the blocks of it that stay dense.

    Attributes:
        layout: the model's sequence.
        name: key in `ORDERS`, or whatever a method calls an order of its own.
        block_size: tokens per block; the last block may be shorter.
        gather: (tokens,) or (batch, heads, tokens) int64, from position in this order to position
            in the model's sequence.
        restore: the inverse of `gather`, of the same shape.
        pinned: (blocks,) bool, blocks that hold a token of the sink or of the text.
        pinned_blocks: how many of them there are.
        sink_tokens: tokens of the first frame if it is the sink, else 0.
        keys: (batch, key_heads, tokens) int64, `gather` of the keys where they have an order of
            their own; None: they share that of the queries.
        found: what the method that made this order learnt from q and k by the way.
    """

    layout: TokenLayout
    name: str
    block_size: int
    gather: Tensor
    restore: Tensor
    pinned: Tensor
    pinned_blocks: int
    sink_tokens: int
    keys: Tensor | None = None
    found: Any = None
    _copies: dict[torch.device, "TokenOrder"] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        return self.gather.shape[-1]

    @property
    def blocks(self) -> int:
        return self.pinned.numel()

    def on(self, device: torch.device) -> "TokenOrder":
        """This order with its tensors on `device`, copied there the first time only."""
        if device == self.gather.device:
            return self
        if device not in self._copies:
            self._copies[device] = replace(
                self,
                gather=self.gather.to(device),
                restore=self.restore.to(device),
                pinned=self.pinned.to(device),
            )
        return self._copies[device]

    def permute(self, x: Tensor) -> Tensor:
        """(batch, heads, tokens, head_dim) of queries, from the model's order into this one."""
        return _take(x, self.on(x.device).gather)

    def permute_keys(self, x: Tensor) -> Tensor:
        """(batch, key_heads, tokens, head_dim) of keys or values, into the order of the keys."""
        order = self.on(x.device)
        return _take(x, order.gather if order.keys is None else order.keys)

    def unpermute(self, x: Tensor) -> Tensor:
        """(batch, heads, tokens, head_dim) from this order back into the model's."""
        return _take(x, self.on(x.device).restore)


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Tokens of (batch, heads, tokens, head_dim) at (tokens,) or (batch, heads, tokens) places."""
    if places.ndim == 1:
        return x.index_select(-2, places)
    rows = torch.arange(x.shape[:2].numel(), device=x.device) * x.shape[-2]
    rows = rows.view(*x.shape[:2], 1) + places
    return x.reshape(-1, x.shape[-1]).index_select(0, rows.flatten()).view(x.shape)


def per_head(orders: Sequence[TokenOrder], kinds: Tensor) -> TokenOrder:
    """Every head in one of several orders that pin the same blocks. Never waits for the device.

    Args:
        orders: of the same layout.
        kinds: (batch, heads) int64, indices into `orders`; kept as `found`.
    """
    orders = [order.on(kinds.device) for order in orders]
    return replace(
        orders[0],
        name="+".join(order.name for order in orders),
        gather=torch.stack([order.gather for order in orders])[kinds],
        restore=torch.stack([order.restore for order in orders])[kinds],
        found=kinds,
        _copies={},
    )


def order_for(layout: TokenLayout, config: SparseConfig, *, name: str | None = None) -> TokenOrder:
    """The order that a completed configuration asks for, or the one called `name`, with its sink."""
    sink = first_frame(layout, config).sink
    return token_order(layout, name=name or config.order, block_size=config.block_size, sink=sink)


@lru_cache(maxsize=64)
def token_order(
    layout: TokenLayout, *, name: str = "compact", block_size: int = 128, sink: bool = True
) -> TokenOrder:
    """The order called `name` for one layout. Cached: the second call costs nothing.

    The sink is the first frame of the longest video, the first of several. Images have none.

    Args:
        block_size: tokens per block, at least 1.
        sink: whether the first frame is pinned, as the text always is.

    Raises:
        UnsupportedLayout: the order does not exist for these grids.
    """
    path = order_path(name)
    if block_size < 1:
        raise ConfigError(f"block_size must be at least 1, got {block_size}")
    if not layout.grids:
        raise UnsupportedLayout(
            "the sequence holds no latent grid, only text", hint="run this attention dense"
        )
    grids, text = token_numbers(layout)
    sink_grid = longest_video(layout) if sink else None
    gather = torch.cat([path(grids, sink_grid, block_size), text])
    restore = gather.argsort()
    sink_frame = text[:0] if sink_grid is None else grids[sink_grid][0].flatten()
    pinned = torch.zeros(-(-layout.tokens // block_size), dtype=torch.bool, device="cpu")
    pinned[restore[torch.cat([sink_frame, text])] // block_size] = True
    return TokenOrder(
        layout=layout,
        name=name,
        block_size=block_size,
        gather=gather,
        restore=restore,
        pinned=pinned,
        pinned_blocks=int(pinned.sum()),
        sink_tokens=sink_frame.numel(),
    )


def token_numbers(layout: TokenLayout) -> tuple[list[Tensor], Tensor]:
    """Numbers of the model's tokens: (frames, height, width) for each grid, (tokens,) for text."""
    numbers = torch.arange(layout.tokens, device="cpu")
    grids, text = [], [numbers[:0]]
    for part, segment in zip(
        numbers.split([segment.tokens for segment in layout.segments]), layout.segments, strict=True
    ):
        if isinstance(segment, LatentGrid):
            grids.append(part.view(segment.frames, segment.height, segment.width))
        else:
            text.append(part)
    return grids, torch.cat(text)


def order_path(name: str) -> "Path":
    """What makes the order called `name`."""
    cell = cell_of(name)
    if cell is not None:
        return _by_part(lambda part: paths.cells(part, cell))
    if name not in ORDERS:
        raise UnknownName("token order", name, [*ORDERS, "4x4x4"])
    return ORDERS[name]


def cell_of(name: str) -> tuple[int, int, int] | None:
    """(frames, rows, columns) of an order's cells, from a name such as "4x4x4"; None for others."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", name)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _sink_last(grids: Sequence[Tensor], sink_grid: int | None) -> list[Tensor]:
    """Every grid without the sink, and then the sink."""
    parts = [grid[1:] if number == sink_grid else grid for number, grid in enumerate(grids)]
    return parts if sink_grid is None else [*parts, grids[sink_grid][:1]]


def _by_part(walk: Callable[[Tensor], Tensor]) -> "Path":
    """[every grid by `walk`, without the sink | the sink], from any grids."""

    def path(grids: Sequence[Tensor], sink_grid: int | None, block_size: int) -> Tensor:
        return torch.cat([walk(part) for part in _sink_last(grids, sink_grid)])

    return path


def _along(axes: tuple[int, ...]) -> "Path":
    return _by_part(lambda part: part.permute(axes).reshape(-1))


def _compact(grids: Sequence[Tensor], sink_grid: int | None, block_size: int) -> Tensor:
    """[every grid in compact blocks, without the sink | the sink], from any grids."""
    order, start = [], 0
    for part in _sink_last(grids, sink_grid):
        order.append(paths.compact(part, start, block_size))
        start += part.numel()
    return torch.cat(order)


def _dither(grids: Sequence[Tensor], sink_grid: int | None, block_size: int) -> Tensor:
    """[tokens so that any leading share lies evenly in every frame | the sink], from any grids."""
    parts = _sink_last(grids, sink_grid)
    rest = parts if sink_grid is None else parts[:-1]
    tokens = torch.cat([part.flatten() for part in rest])
    ranks = torch.cat([paths.dither_ranks(*part.shape).flatten() for part in rest])
    tokens = tokens[ranks.argsort(stable=True)]
    return tokens if sink_grid is None else torch.cat([tokens, parts[-1].flatten()])


def _window(grids: Sequence[Tensor], sink_grid: int | None, block_size: int) -> Tensor:
    """[2x8x8 windows | rows below | columns beside | first frame]; of images 8x16 windows of each.

    As the paper's text has it: 3D windows of videos, 2D windows of images.
    """
    if all(len(grid) == 1 for grid in grids):
        return torch.cat([paths.windows(grid, (1, 8, 16)) for grid in grids])
    grid = _only_grid(grids, "window")
    first, rest = grid[:1], grid[1:]
    if len(rest) % 2:
        raise UnsupportedLayout(
            f"order 'window' needs an even number of frames after the first, got {len(rest)}",
            hint="order 'compact' takes any number of frames",
        )
    return torch.cat([paths.windows(rest, (2, 8, 8)), first.flatten()])


def _frame(grids: Sequence[Tensor], sink_grid: int | None, block_size: int) -> Tensor:
    """[first frame | frame after frame in 8x8 windows]; the first in windows if they divide it.

    An image has no first frame that is kept, and is in windows too.
    """
    grid = _only_grid(grids, "frame")
    if len(grid) == 1 or grid.shape[1] % 8 == grid.shape[2] % 8 == 0:
        return paths.frame_windows(grid)
    first, rest = grid[:1], grid[1:]
    return torch.cat([first.flatten(), *map(paths.frame_windows, rest.split(1))])


def _raster(grids: Sequence[Tensor], sink_grid: int | None, block_size: int) -> Tensor:
    """The model's order."""
    return torch.cat([grid.flatten() for grid in grids])


def _only_grid(grids: Sequence[Tensor], name: str) -> Tensor:
    if len(grids) > 1:
        raise UnsupportedLayout(
            f"order {name!r} is defined for one latent grid, got {len(grids)}",
            hint="order 'compact' takes any number of grids",
        )
    return grids[0]


Path = Callable[[Sequence[Tensor], int | None, int], Tensor]
AXES = {"".join("thw"[axis] for axis in axes): axes for axes in permutations(range(3))}
ORDERS: dict[str, Path] = {
    "compact": _compact,
    "window": _window,
    "frame": _frame,
    "raster": _raster,
    "dither": _dither,
    **{name: _along(axes) for name, axes in AXES.items()},
}


def token_places(order: TokenOrder) -> Tensor:
    """(tokens, 3) int64 in this order: frame, row and column of each token; -1 for text.

    Frames are counted through all grids. For orders that all heads share.
    """
    places = torch.full((order.tokens, 3), -1, dtype=torch.int64, device="cpu")
    grids, _ = token_numbers(order.layout)
    frames = 0
    for grid in grids:
        sides = [torch.arange(side, device="cpu") for side in grid.shape]
        sides[0] += frames
        places[grid.flatten()] = torch.stack(torch.meshgrid(sides, indexing="ij"), -1).view(-1, 3)
        frames += len(grid)
    return places[order.gather.cpu()]


def compactness(order: TokenOrder) -> float:
    """Mean squared distance of a token from the centre of its block; less is better.

    A frame counts as `paths.TIME_WEIGHT` rows, and grids follow each other in time. Only whole
    blocks that are not pinned count; without any the result is 0.

    Returns:
        Squared rows, at least 0.
    """
    points = torch.zeros(order.tokens, 3, device="cpu")
    grids, _ = token_numbers(order.layout)
    frames = 0
    for grid in grids:
        points[grid.flatten()] = paths.positions(*grid.shape)
        points[grid.flatten(), 0] += frames * paths.TIME_WEIGHT
        frames += len(grid)
    spread = paths.block_spread(points[order.gather.cpu()], order.block_size)
    free = spread[~order.pinned.cpu()[: len(spread)]]
    return free.mean().item() if len(free) else 0.0
