"""The nearest blocks in space and time, on grids where they can be seen."""

import torch

from rainfusion_core.layout import LatentGrid, Text
from tests.selecting import kept_lists, order_of, qk, select


def test_a_row_keeps_itself_and_its_neighbours():
    order = order_of(LatentGrid(1, 1, 10), block_size=2, name="raster")
    kept = select("local", *qk(order, batch=1, heads=1), order, sparsity=0.4)
    assert kept_lists(kept) == [[[[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]]]


def test_a_frame_is_as_far_as_four_rows():
    # blocks are rows of two tokens; frames 0, 1 and 2 have five rows each
    order = order_of(LatentGrid(3, 5, 2), block_size=2, name="raster", sink=False)
    kept = kept_lists(
        select("local", *qk(order, batch=1, heads=1), order, sparsity=0.6, sink=False)
    )
    # of row 2 of frame 1 (block 7): its frame, and of the others only what is not farther than 4
    assert kept[0][0][7] == [2, 5, 6, 7, 8, 9, 12][:6] or kept[0][0][7] == [5, 6, 7, 8, 9, 12]


def test_text_is_kept_as_pinned_and_its_place_has_no_meaning():
    order = order_of(LatentGrid(1, 1, 8), Text(2), block_size=2, name="raster")
    q, k = qk(order, batch=1, heads=1)
    rows = kept_lists(select("local", q, k, order, sparsity=0.6, budget="total"))[0][0]
    assert rows == [[0, 4], [1, 4], [2, 4], [3, 4], [0, 1, 2, 3, 4]]
    assert torch.is_tensor(q)
