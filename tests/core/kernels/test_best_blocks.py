"""The choice on a GPU against the plain one, which `test_choice` and `test_rainfusion2` check."""

import pytest
import torch

from rainfusion_core.budget import chosen_per_row
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.selection.choice import keep, keep_on_a_gpu
from tests.selecting import call_of, order_of
from tests.shapes import DEVICE

best_blocks = pytest.importorskip("rainfusion_core.kernels.best_blocks")
ORDERS = {
    "video-and-text": order_of(LatentGrid(3, 6, 7), Text(20)),
    "image": order_of(LatentGrid(1, 11, 13)),
    "one-block": order_of(LatentGrid(1, 2, 3)),
    "all-pinned": order_of(LatentGrid(1, 1, 3), Text(60), block_size=64),
}
ORDER = pytest.mark.parametrize("order", [pytest.param(o, id=name) for name, o in ORDERS.items()])


def both(scores, order, **settings):
    """The plain choice on the CPU and that for a GPU."""
    call = call_of(order.layout, **settings)
    config = call.config
    chosen = chosen_per_row(
        order.blocks, order.pinned_blocks, sparsity=config.sparsity, budget=config.budget
    )
    ours = keep_on_a_gpu(scores.to(DEVICE), order.on(torch.device(DEVICE)), call, chosen)
    return keep(scores.clone(), order, call), ours


@pytest.mark.parametrize("budget", ["paper", "total"])
@pytest.mark.parametrize("sparsity", [0.2, 0.8, 0.97], ids="sparsity{}".format)
@ORDER
def test_keeps_what_the_plain_choice_keeps(order, sparsity: float, budget: str):
    scores = torch.randn(1, 2, order.blocks, order.blocks) * 3
    scores[0, 0, 0, 0] = float("-inf")
    expected, ours = both(scores, order, sparsity=sparsity, budget=budget)
    assert torch.equal(ours.count.cpu(), expected.count)
    rows = zip(ours.index.flatten(0, 2), expected.index.flatten(0, 2), strict=True)
    for (row, wanted), count in zip(rows, expected.count.flatten().tolist(), strict=True):
        assert torch.equal(row[:count].cpu(), wanted[:count])
        assert row.min() >= 0 and row.max() < order.blocks


@pytest.mark.parametrize("budget", ["paper", "total"])
@ORDER
def test_never_keeps_padding(order, budget: str):
    scores = torch.randn(3, 2, order.blocks, order.blocks)
    lengths = torch.tensor([0, order.tokens // 2, order.tokens])
    expected, ours = both(scores, order, sparsity=0.6, budget=budget, key_lengths=lengths)
    assert torch.equal(ours.count.cpu(), expected.count)
    listed = torch.arange(ours.index.shape[-1]) < expected.count[..., None]
    assert torch.equal(ours.index.cpu()[listed], expected.index[listed])


def test_of_equal_scores_the_first_are_kept():
    order = ORDERS["image"]
    scores = torch.zeros(1, 1, order.blocks, order.blocks)
    scores[..., 7] = 1
    scores[..., 8] = -1
    _, ours = both(scores, order, sparsity=1 - 5 / order.blocks)
    assert ours.index.flatten(0, 2).tolist() == [[0, 1, 2, 3, 7]] * order.blocks


def test_more_columns_than_rows_of_a_program_hold():
    order = order_of(LatentGrid(1, 110, 160), name="raster")
    assert order.blocks > 1024
    scores = torch.randn(1, 1, 2, order.blocks)
    ours = best_blocks.best_blocks(
        scores.contiguous().to(DEVICE), order.pinned.to(DEVICE), 300, block_size=16,
        drop_pinned=False, width=300,
    )  # fmt: skip
    expected = scores.topk(300).indices.sort().values
    assert torch.equal(ours.index.long().cpu(), expected)
