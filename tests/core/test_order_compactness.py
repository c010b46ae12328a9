"""How compact the blocks of each order are: of real grids, and of any grid beside the published orders."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.order import compactness, token_order
from tests.layouts import layout, layouts, orders_of


@pytest.mark.parametrize(
    ("grid", "raster", "window"),
    [
        # "window" is not defined for an odd number of frames after the first
        pytest.param((20, 45, 80), 528, 70.7, id="wan-720p"),
        pytest.param((20, 30, 52), 235, 64.2, id="wan-480p"),
        pytest.param((30, 30, 53), 243, 70.9, id="hunyuan-video-1.5-480p"),
        pytest.param((31, 22, 40), 143, None, id="wan-2.2-5b"),
        pytest.param((12, 30, 45), 181, 53.4, id="cogvideox-5b"),
        pytest.param((12, 24, 24), 63, 14.5, id="divisible"),
    ],
)
def test_compactness_of_real_grids(grid, raster, window):
    frames, height, width = grid
    whole = layout((frames + 1, height, width))
    assert compactness(token_order(whole, name="raster")) == pytest.approx(raster, rel=0.04)
    compact = compactness(token_order(whole))
    assert 14.5 <= compact < 17
    if window:
        published = compactness(token_order(whole, name="window"))
        assert published == pytest.approx(window, rel=0.01)
        assert compact <= published


@given(layouts, st.sampled_from([16, 64, 128]))
def test_compact_is_never_looser_than_window(layout, block_size):
    assume(layout.grids[0].frames % 2)
    window = token_order(layout, name="window", block_size=block_size)
    assert compactness(token_order(layout, block_size=block_size)) <= compactness(window)


@given(st.tuples(st.integers(3, 9), st.integers(9, 33), st.integers(9, 33)))
def test_compact_is_never_looser_than_a_public_order_on_grids_larger_than_a_window(grid):
    orders = {order.name: compactness(order) for order in orders_of(layout(grid), 128)}
    others = [orders[name] for name in ("window", "frame", "raster") if orders.get(name)]
    assert orders["compact"] <= min(others)


@given(st.tuples(st.integers(2, 9), st.integers(9, 33), st.integers(9, 33)))
def test_compact_blocks_are_never_looser_than_windows_of_one_frame(grid):
    assert compactness(token_order(layout(grid))) <= 26.5


def test_compactness_leaves_out_pinned_and_short_blocks():
    # one whole block of 4x4 in frame 1; then the first frame and a rest of text
    order = token_order(layout((2, 4, 4), after=5), block_size=16)
    assert order.pinned.tolist() == [False, True, True]
    assert compactness(order) == 2.5


def test_compactness_keeps_grids_apart_in_time():
    two = TokenLayout((LatentGrid(1, 2, 4), LatentGrid(1, 2, 4)))
    one = TokenLayout((LatentGrid(2, 2, 4),))
    spread = [
        compactness(token_order(layout, name="raster", block_size=16, sink=False))
        for layout in (two, one)
    ]
    assert spread[0] == spread[1] == 1.5 + 4


def test_no_free_whole_block_means_compactness_zero():
    assert compactness(token_order(layout((2, 3, 3)))) == 0
