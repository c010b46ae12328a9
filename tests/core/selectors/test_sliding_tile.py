"""Windows of tiles, against the rule tile by tile."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.order import token_places
from tests.selecting import call_of, kept_lists, order_of, qk, select


def test_one_row_of_tiles_shifts_its_window_at_the_ends():
    # five tiles of 4 tokens, a block each
    order = order_of(LatentGrid(1, 1, 20), name="1x1x4", block_size=4)
    kept = select("sliding-tile", *qk(order, batch=1, heads=2), order, sparsity=0.4)
    rows = [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    assert kept_lists(kept) == [[rows] * 2]


@pytest.mark.parametrize("window", ["1x3x3", "3x1x5", "3x3x3", "5x5x5", "9x9x9"])
def test_a_pair_is_kept_if_the_tiles_are_in_the_window_on_every_axis(window):
    order = order_of(LatentGrid(6, 12, 20), name="2x4x4", block_size=32, sink=False)
    options = {"window": window}
    kept = select("sliding-tile", *qk(order, batch=1, heads=1), order, options=options)
    mask = kept_mask(kept)[0, 0]
    tiles = token_places(order)[::32] // torch.tensor([2, 4, 4])
    counts = tiles.amax(0) + 1
    sides = [int(side) for side in window.split("x")]
    for i, query in enumerate(tiles.tolist()):
        for j, key in enumerate(tiles.tolist()):
            inside = True
            for q, k, w, n in zip(query, key, sides, counts.tolist(), strict=True):
                half = w // 2
                centre = min(max(q, half), n - 1 - half)
                inside &= abs(centre - k) <= half if n > 2 * half else True
            assert mask[i, j] == inside


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
def test_the_window_is_the_one_whose_density_is_nearest(sparsity):
    order = order_of(LatentGrid(6, 12, 20), name="2x4x4", block_size=32, sink=False)
    settings = dict(sparsity=sparsity)
    kept = select("sliding-tile", *qk(order, batch=1, heads=1), order, **settings)
    # 3 x 3 x 5 tiles; windows of odd sides keep 1 or all 3, and 1, 3 or all 5 of an axis
    shares = [t * h * w / 45 for t in (1, 3) for h in (1, 3) for w in (1, 3, 5)]
    nearest = min(abs(share - (1 - sparsity)) for share in shares)
    assert abs(kept.density - (1 - sparsity)) == pytest.approx(nearest, abs=1e-4)


def test_blocks_that_lie_in_several_tiles_keep_what_any_of_them_keeps():
    # tiles of 4, 4 and 2 tokens; blocks of 4, 4 and 2; a window of one tile
    order = order_of(LatentGrid(1, 1, 10), Text(3), name="1x1x4", block_size=4)
    q, k = qk(order, batch=1, heads=1)
    options = {"window": "1x1x1"}
    kept = select("sliding-tile", q, k, order, options=options)
    # block 2 is the last tile and the text's first two tokens; block 3 is text
    assert kept_lists(kept) == [[[[0, 2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]]]
    straddling = order_of(LatentGrid(1, 1, 12), name="1x1x3", block_size=4)
    q, k = qk(straddling, batch=1, heads=1)
    kept = select("sliding-tile", q, k, straddling, options=options)
    assert kept_lists(kept) == [[[[0, 1], [0, 1, 2], [1, 2]]]]


def test_tiles_begin_behind_the_sink():
    order = order_of(LatentGrid(5, 4, 4), name="2x4x4", block_size=32)
    options = {"window": "1x1x1"}
    q, k = qk(order, batch=1, heads=1)
    kept = select("sliding-tile", q, k, order, options=options)
    assert kept_lists(kept) == [[[[0, 2], [1, 2], [0, 1, 2]]]]


def test_an_order_without_cells_and_a_window_without_sides_are_refused():
    layout = order_of(LatentGrid(1, 4, 8), name="raster").layout
    with pytest.raises(ConfigError, match="method sliding-tile needs an order of cells"):
        call_of(layout, "sliding-tile", order="raster")
    with pytest.raises(ConfigError, match="method option window must be tiles of"):
        call_of(layout, "sliding-tile", options={"window": "wide"})
