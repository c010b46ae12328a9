"""The best entries of the whole head's map, against a sort of all of them."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.order import token_places
from tests.selecting import kept_lists, one_number_keys, order_of, qk, select

ORDER = order_of(LatentGrid(1, 8, 20))


def test_a_block_is_a_cell_of_a_frame_where_cells_divide_it():
    order = order_of(LatentGrid(2, 16, 32), name="1x8x16", block_size=128, sink=False)
    places = token_places(order).split(128)
    assert [(p.amin(0).tolist(), p.amax(0).tolist()) for p in places[:3]] == [
        ([0, 0, 0], [0, 7, 15]), ([0, 0, 16], [0, 7, 31]), ([0, 8, 0], [0, 15, 15]),
    ]  # fmt: skip


@pytest.mark.parametrize("sparsity", [0.3, 0.7])
def test_the_greatest_entries_of_each_head_are_kept_wherever_they_are(sparsity):
    q, k = (x * 2 for x in qk(ORDER))
    mask = kept_mask(select("draft", q, k, ORDER, sparsity=sparsity))
    means = [x.unflatten(-2, (10, 16)).mean(-2).double() for x in (q, k)]
    maps = (means[0] @ means[1].mT).softmax(-1)
    for found, draft in zip(mask.flatten(0, 1), maps.flatten(0, 1), strict=True):
        first = torch.nn.functional.one_hot(draft.argmax(-1), 10).bool()
        ranked = sorted(
            ((bool(first[i, j]), draft[i, j].item(), i, j) for i in range(10) for j in range(10)),
            reverse=True,
        )[: round(100 * (1 - sparsity))]
        assert {(i, j) for *_, i, j in ranked} == {tuple(x) for x in found.nonzero().tolist()}


def test_rows_differ_and_none_is_empty():
    # one query block is so peaked that it needs one key block; the others share the rest
    order = order_of(LatentGrid(1, 1, 8), block_size=2, name="raster")
    q, k = one_number_keys([3, 2, 1, 0], 2)
    q[..., :2, :] = 50
    kept = select("draft", q, k, order, sparsity=0.5)
    # maps of ones: 0.64, 0.24, 0.09, 0.03; of fifty: 1, 0, 0, 0. Eight entries: 4 first ones, 3 seconds, a third
    assert kept.count[0, 0].tolist()[0] == 1 and kept.count.sum() == 8
    assert kept_lists(kept)[0][0][1][:2] == [0, 1]


def test_the_total_budget_counts_the_text():
    order = order_of(LatentGrid(1, 8, 20), Text(30))  # 12 blocks, the last two hold text
    q, k = qk(order)
    kept = select("draft", q, k, order, sparsity=0.4, budget="total")
    # 86.4 of 144 pairs are rounded up to 87, of which 44 are the text's
    assert kept.count.sum(-1).unique().tolist() == [87]
