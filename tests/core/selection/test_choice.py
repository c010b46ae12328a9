"""The choice by mass, against hand-worked cases and a plain loop; the fixed share is tested with rainfusion2."""

import pytest
import torch

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.selection.choice import keep, within
from tests.selecting import call_of, kept_lists, order_of

FOUR = order_of(LatentGrid(1, 1, 8), block_size=2, name="raster")
WITH_TEXT = order_of(LatentGrid(1, 1, 6), Text(2), block_size=2, name="raster")
MASSES = [0.15, 0.5, 0.05, 0.3]


def kept(masses, order, **settings) -> KeptBlocks:
    return keep(torch.tensor(masses).log().view(1, 1, 1, -1).repeat(1, 1, order.blocks, 1),
                order, call_of(order.layout, **settings))  # fmt: skip


@pytest.mark.parametrize(
    ("mass", "row"),
    [(0.49, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3]), (0.99, [0, 1, 2, 3])],
)
def test_a_row_keeps_the_fewest_blocks_that_reach_the_mass(mass, row):
    assert kept_lists(kept(MASSES, FOUR, mass=mass)) == [[[row] * 4]]


@pytest.mark.parametrize(
    ("budget", "row"),
    [
        pytest.param("paper", [0, 1, 3], id="paper-reaches-the-mass-and-adds-the-text"),
        pytest.param("total", [0, 1, 3], id="total-counts-the-text-first"),
    ],
)
def test_the_mass_of_text(budget, row):
    masses = [0.3, 0.4, 0.1, 0.2]  # of the text block 3; 0.6 is 0.4 + 0.3, or 0.2 + 0.4 + a bit
    rows = kept_lists(kept(masses, WITH_TEXT, mass=0.65, budget=budget))[0][0]
    assert rows == [row] * 3 + [[0, 1, 2, 3]]
    fewer = kept_lists(kept(masses, WITH_TEXT, mass=0.55, budget=budget))[0][0][0]
    assert fewer == ([0, 1, 3] if budget == "paper" else [1, 3])


def test_the_mass_of_padding_does_not_count():
    masses = [0.15, 0.3, 0.05, 0.5]
    padded = kept(masses, WITH_TEXT, mass=0.5, key_lengths=torch.tensor([6]))
    assert kept_lists(padded)[0][0] == [[1]] * 3 + [[0, 1, 2]]


def test_every_head_has_rows_of_its_own_length_and_reaches_the_mass():
    order = order_of(LatentGrid(5, 7, 9), Text(20))
    scores = torch.randn(2, 3, order.blocks, order.blocks) * 3
    masses = scores.softmax(-1)
    for budget in ("paper", "total"):
        rows = kept_lists(
            keep(scores.clone(), order, call_of(order.layout, mass=0.7, budget=budget))
        )
        lengths = set()
        for b, h, i in torch.cartesian_prod(*map(torch.arange, scores.shape[:3])).tolist():
            assert masses[b, h, i, rows[b][h][i]].sum() >= 0.7 - 1e-6
            lengths.add(len(rows[b][h][i]))
        assert len(lengths) > 2


def test_more_mass_than_a_row_may_choose_blocks_for_stops_there():
    scores = torch.tensor(MASSES).log().view(1, 1, 1, -1).repeat(1, 1, 4, 1)
    capped = keep(scores, FOUR, call_of(FOUR.layout, mass=0.99), most=2)
    assert kept_lists(capped) == [[[[1, 3]] * 4]]


@pytest.mark.parametrize(
    ("budget", "rows"),
    [
        pytest.param("paper", [[0, 1, 3], [1, 3], [1, 2, 3], [1, 3]], id="paper-adds-them"),
        # 8 pairs, 2 are forced, 6 are left for 4 rows: 1.5, so 2 each besides the forced ones
        pytest.param("total", [[0, 1, 3], [1, 3], [1, 2, 3], [1, 3]], id="total-pays-for-them"),
    ],
)
def test_forced_pairs_are_kept(budget, rows):
    scores = torch.tensor(MASSES).log().view(1, 1, 1, -1).repeat(1, 1, 4, 1)
    forced = torch.zeros(4, 4, dtype=torch.bool)
    forced[0, 0] = forced[2, 2] = True
    call = call_of(FOUR.layout, sparsity=0.5, budget=budget)
    assert kept_lists(keep(scores, FOUR, call, forced=forced)) == [[rows]]


def test_rows_may_choose_as_many_as_they_are_told():
    scores = torch.tensor(MASSES).log().view(1, 1, 1, -1).repeat(1, 2, 4, 1)
    counts = torch.tensor([1, 3])[None, :, None, None]
    found = keep(scores, FOUR, call_of(FOUR.layout, sparsity=0.5), counts=counts)
    assert kept_lists(found) == [[[[1]] * 4, [[0, 1, 3]] * 4]]


@pytest.mark.parametrize(
    ("budget", "sparsity", "farthest"),
    [
        # 36 pairs, at distances from 0 on: 6, 10, 8, 6, 4 and 2, together 6, 16, 24, 30, 34 and 36
        ("paper", 0.8, 0), ("paper", 0.6, 1), ("paper", 0.4, 2), ("paper", 0.01, 5),
        # the text takes 11; of the other 25, at distances from 0 on: 5, 13, 19, 23, 25 are within
        ("total", 0.6, 0), ("total", 0.3, 1), ("total", 0.1, 3),
    ],
)  # fmt: skip
def test_a_reach_is_chosen_for_the_nearest_share(budget, sparsity, farthest):
    order = order_of(LatentGrid(1, 1, 10), Text(2), block_size=2, name="raster")
    blocks = torch.arange(6)
    reach = (blocks[:, None] - blocks).abs().float()
    config = call_of(order.layout, sparsity=sparsity, budget=budget).config
    assert within(reach, order, config).equal(reach <= farthest)


def test_what_is_out_of_reach_is_never_kept():
    reach = torch.full((4, 4), float("inf")).fill_diagonal_(0)
    mask = within(reach, FOUR, call_of(FOUR.layout, sparsity=0.01).config)
    assert mask.equal(torch.eye(4, dtype=torch.bool))
