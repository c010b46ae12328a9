from math import ceil, floor

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from rainfusion_core import paths

sides = st.tuples(st.integers(1, 9), st.integers(1, 25), st.integers(1, 25))
block_sizes = st.sampled_from([1, 16, 24, 128])


def numbers(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape)


def spread(path: torch.Tensor, shape: tuple[int, ...], block_size: int, start: int) -> float:
    """Mean over the whole blocks of a path that begins at `start`; 0 without any."""
    points = paths.positions(*shape)[path][-start % block_size :]
    blocks = paths.block_spread(points, block_size)
    return blocks.mean().item() if len(blocks) else 0.0


def is_bijection(path: torch.Tensor, index: torch.Tensor) -> bool:
    return path.sort().values.equal(index.flatten())


@given(sides, block_sizes, st.integers(0, 300), st.integers(0, 1000))
def test_compact_path_visits_every_token_once(shape, block_size, start, first_token):
    index = numbers(*shape) + first_token
    assert is_bijection(paths.compact(index, start, block_size), index)


@given(sides, block_sizes, st.integers(0, 300))
def test_bisection_visits_every_token_once(shape, block_size, start):
    assert is_bijection(paths.bisection(numbers(*shape), start, block_size), numbers(*shape))


@given(sides, block_sizes, st.data())
def test_serpentine_visits_every_token_once(shape, block_size, data):
    layers = data.draw(st.integers(1, shape[0]))
    for rounding in (floor, ceil):
        path = paths.serpentine(numbers(*shape), layers, block_size, rounding)
        assert is_bijection(path, numbers(*shape))


@given(sides, st.sampled_from([16, 128]), st.sampled_from([0, 5, 8, 15]))
@example((1, 24, 17), 64, 0)  # windows of one frame win here
@example((4, 25, 24), 128, 0)  # and here windows of two
@example((1, 24, 26), 128, 0)  # and here bisection
@example((9, 10, 10), 128, 5)  # and here the raster, by a hair
def test_compact_is_never_looser_than_any_other_path_from_the_same_place(shape, block_size, start):
    index = numbers(*shape)
    others = [
        index.flatten(),
        paths.frame_windows(index),
        paths.bisection(index, start, block_size),
    ]
    if shape[0] % 2 == 0:
        others.append(paths.windows(index, (2, 8, 8)))
    compact = spread(paths.compact(index, start, block_size), shape, block_size, start)
    assert compact <= min(spread(other, shape, block_size, start) for other in others)


@pytest.mark.parametrize("shape", [(2, 8, 8), (4, 16, 24), (12, 24, 24)])
def test_serpentine_blocks_are_2x8x8_windows_where_those_divide_the_grid(shape):
    path = paths.serpentine(numbers(*shape), shape[0] // 2, 128, ceil)
    windows = paths.windows(numbers(*shape), (2, 8, 8))
    blocks = [{tuple(sorted(block.tolist())) for block in p.split(128)} for p in (path, windows)]
    assert blocks[0] == blocks[1]


def test_serpentine_never_jumps_between_neighbouring_columns_strips_or_layers():
    shape = (4, 20, 30)
    points = paths.positions(*shape)[paths.serpentine(numbers(*shape), 2, 128, floor)]
    # at most one layer of 2 frames, the rows of one strip, one column
    assert points.diff(dim=0).abs().amax(dim=0).tolist() == [8, 9, 1]


def test_bisection_cuts_at_block_boundaries_of_the_whole_sequence():
    path = paths.bisection(numbers(1, 1, 20), start=5, block_size=8)
    assert [sorted(part.tolist()) for part in path.split([3, 8, 8, 1])] == [
        [0, 1, 2],
        [*range(3, 11)],
        [*range(11, 19)],
        [19],
    ]


@pytest.mark.parametrize("path", [paths.bisection, paths.compact])
@pytest.mark.parametrize("start", range(16))
def test_a_path_is_compact_wherever_in_a_block_it_begins(path, start):
    shape = 1, 16, 16
    assert spread(path(numbers(*shape), start, 16), shape, 16, start) < 3.5


def test_bisection_weighs_a_frame_as_four_rows():
    path = paths.bisection(numbers(2, 1, 4), start=0, block_size=4)
    assert sorted(path[:4].tolist()) == [0, 1, 2, 3]
    path = paths.bisection(numbers(2, 1, 6), start=0, block_size=6)
    assert sorted(path[:6].tolist()) == [0, 1, 2, 6, 7, 8]


@pytest.mark.parametrize(
    ("window", "wanted"),
    [((2, 8, 8), 14.5), ((1, 8, 16), 26.5), ((4, 4, 8), 26.5), ((1, 1, 128), 1365.25)],
)
def test_spread_of_a_cuboid_is_the_variance_of_its_sides(window, wanted):
    points = paths.positions(*window)
    torch.testing.assert_close(paths.block_spread(points, 128), torch.tensor([wanted]))


def test_a_short_last_block_has_no_spread():
    assert paths.block_spread(paths.positions(1, 3, 7), 8).shape == (2,)
    assert paths.block_spread(paths.positions(1, 1, 7), 8).shape == (0,)
