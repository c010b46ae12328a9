"""Paths through one grid of tokens: in which order its places are visited.

A path takes the token numbers of a grid, (frames, height, width) int64, and returns the same
numbers as (tokens,) int64. Cut into blocks, a good path gives blocks that are small in space and
time, so that the mean of a block stands for its tokens.
"""

from collections.abc import Callable, Iterator
from math import ceil, floor, sqrt

import torch
from torch import Tensor

TIME_WEIGHT = 4  # one latent frame is as far as this many rows or columns


def windows(index: Tensor, window: tuple[int, int, int]) -> Tensor:
    """Whole windows first, then the rows below them, then the columns beside them, both raster.

    Args:
        index: (frames, height, width), frames a multiple of the window's.
        window: frames, rows and columns of one window.
    """
    frames, height, width = index.shape
    depth, rows, columns = window
    below, beside = height - height % rows, width - width % columns
    whole = index[:, :below, :beside].reshape(
        frames // depth, depth, below // rows, rows, beside // columns, columns
    )
    parts = (whole.permute(0, 2, 4, 1, 3, 5), index[:, below:], index[:, :below, beside:])
    return torch.cat([part.reshape(-1) for part in parts])


def frame_windows(index: Tensor) -> Tensor:
    """8x8 windows within each frame, frame after frame; leftovers of a frame stay with it."""
    return torch.cat([windows(frame, (1, 8, 8)) for frame in index.split(1)])


def cells(index: Tensor, cell: tuple[int, int, int]) -> Tensor:
    """Cell after cell in raster order, and raster order in each; cells at the sides may be cut.

    Args:
        cell: frames, rows and columns of one cell.
    """
    frames, rows, columns = cell
    return torch.cat([
        part.reshape(-1)
        for layer in index.split(frames)
        for strip in layer.split(rows, dim=1)
        for part in strip.split(columns, dim=2)
    ])  # fmt: skip


def dither_ranks(frames: int, height: int, width: int) -> Tensor:
    """(frames, height, width) int64 from 0 to 15: places up to any rank lie evenly in a frame.

    The eight lowest ranks are the squares of one colour of a chessboard (Bayer's matrix).
    """
    matrix = torch.tensor(
        [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], device="cpu"
    )
    rows, columns = torch.arange(height, device="cpu") % 4, torch.arange(width, device="cpu") % 4
    return matrix[rows[:, None], columns].expand(frames, -1, -1)


def serpentine(
    index: Tensor, layers: int, block_size: int, rounding: Callable[[float], int]
) -> Tensor:
    """Layers of frames, cut into strips of rows, walked to and fro so that no step is a jump.

    A strip is as high as the side of a square block of that layer, so `block_size` tokens in a
    row are nearly a cuboid wherever a block begins. Where 2x8x8 windows divide the grid, blocks
    of 128 are exactly those windows.

    Args:
        index: (frames, height, width).
        layers: number of layers, from 1 to frames; the first ones take the odd frames.
        rounding: turns the wanted number of strips into a whole one.
    """
    path = []
    for number, layer in enumerate(index.tensor_split(layers)):
        depth, height, _ = layer.shape
        strips = min(height, max(1, rounding(height / sqrt(block_size / depth))))
        walk = [
            (strip.flip(2) if turn % 2 else strip).permute(2, 1, 0).reshape(-1)
            for turn, strip in enumerate(layer.tensor_split(strips, dim=1))
        ]
        path.append(torch.cat(walk).flip(0) if number % 2 else torch.cat(walk))
    return torch.cat(path)


def bisection(index: Tensor, start: int, block_size: int) -> Tensor:
    """Split the tokens across their longest side at a block boundary, until a part is one block.

    Args:
        index: (frames, height, width).
        start: where the path begins in the sequence; blocks are counted from its beginning.
    """
    points = positions(*index.shape)
    return index.flatten()[
        _bisect(torch.arange(len(points), device="cpu"), points, start, block_size)
    ]


def _bisect(tokens: Tensor, points: Tensor, start: int, block_size: int) -> Tensor:
    first, last = start // block_size, ceil((start + len(tokens)) / block_size)
    if last - first <= 1:
        return tokens
    low, high = points[tokens].aminmax(dim=0)
    axis = (high - low).argmax()
    tokens = tokens[points[tokens, axis].argsort(stable=True)]
    middle = (first + last) // 2 * block_size
    return torch.cat(
        [
            _bisect(tokens[: middle - start], points, start, block_size),
            _bisect(tokens[middle - start :], points, middle, block_size),
        ]
    )


def compact(index: Tensor, start: int, block_size: int) -> Tensor:
    """The most compact of all paths above, by measurement; any grid, any block size.

    Args:
        index: (frames, height, width).
        start: where the path begins in the sequence; blocks are counted from its beginning.
    """
    points = positions(*index.shape)
    numbers = torch.arange(len(points), device="cpu").view(index.shape)
    head = -start % block_size
    if len(points) - head < block_size:
        return bisection(index, start, block_size)
    paths = list(_candidates(numbers, start, block_size))
    spreads = [block_spread(points[path[head:]], block_size).mean().item() for path in paths]
    return index.flatten()[paths[spreads.index(min(spreads))]]


def _candidates(index: Tensor, start: int, block_size: int) -> Iterator[Tensor]:
    frames, height, width = index.shape
    for layers in _layer_counts(frames, height, width, block_size):
        for rounding in (floor, ceil):
            yield serpentine(index, layers, block_size, rounding)
            yield serpentine(index.transpose(1, 2), layers, block_size, rounding)
    yield bisection(index, start, block_size)
    yield index.flatten()
    yield frame_windows(index)
    if frames % 2 == 0:
        yield windows(index, (2, 8, 8))


def _layer_counts(frames: int, height: int, width: int, block_size: int) -> list[int]:
    """The three numbers of layers whose blocks, as cuboids, would be the most compact."""

    def spread(layers: int) -> float:
        depth = frames / layers
        short = min(height, width, sqrt(block_size / depth))
        long = min(max(height, width), block_size / depth / short)
        return (TIME_WEIGHT * depth) ** 2 + short**2 + long**2

    return sorted(range(1, frames + 1), key=spread)[:3]


def positions(frames: int, height: int, width: int) -> Tensor:
    """(tokens, 3) float32: weighted frame, row and column of every token, in raster order."""
    sides = [
        torch.arange(side, device="cpu", dtype=torch.float32) for side in (frames, height, width)
    ]
    sides[0] *= TIME_WEIGHT
    return torch.stack(torch.meshgrid(sides, indexing="ij"), dim=-1).view(-1, 3)


def block_spread(points: Tensor, block_size: int) -> Tensor:
    """Mean squared distance of the tokens of each whole block from the block's centre.

    Args:
        points: (tokens, 3), in the order of the path; a short last block is left out.

    Returns:
        (whole blocks,) float32, in squared rows.
    """
    blocks = len(points) // block_size
    whole = points[: blocks * block_size].view(blocks, block_size, 3)
    return (whole - whole.mean(dim=1, keepdim=True)).square().sum(dim=-1).mean(dim=1)
