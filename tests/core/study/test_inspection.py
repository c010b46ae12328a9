"""Views of a call against masks and orders worked out by hand."""

import numpy as np
import pytest
import torch

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.recording import CapturedCall
from rainfusion_core.study.inspection import KEPT, QUERY, top_share, views

LAYOUT = TokenLayout((Text(5), LatentGrid(3, 4, 8)))


def call(layout=LAYOUT):
    q, k, v = (torch.randn(2, 2, layout.tokens, 8) for _ in range(3))
    return CapturedCall(q, k, v, layout, 0.4, 2, "cond", "transformer", 1)


def config(**changes):
    return SparseConfig(**{"block_size": 16, "sparsity": 0.6, "sink": False, **changes})


def test_maps_have_a_row_a_query_block_and_masses_that_sum_to_one():
    for number, view in enumerate(views(call(), config(), token=(0, 0, 0))):
        assert (view.head, view.layer, view.step) == (number, 1, 2)
        assert view.mass.shape == view.kept.shape == (7, 7)
        assert view.mass.sum(-1) == pytest.approx(1, abs=1e-5)
        assert view.fine.sum(-1) == pytest.approx(1, abs=1e-5)
        assert view.density == pytest.approx(view.kept.mean())
        assert 0 < view.recall <= 1


def test_the_top_fifth_is_counted_row_by_row_and_rounded_up():
    mass = torch.tensor([[0.5, 0.1, 0.2, 0.1, 0.1, 0.0], [0.1, 0.1, 0.1, 0.1, 0.2, 0.4]])
    assert top_share(mass, 0.2) == pytest.approx((0.5 + 0.2 + 0.4 + 0.2) / 2)
    assert top_share(mass, 0.1) == pytest.approx(0.45)
    for view in views(call(), config(), token=(0, 0, 0)):
        best = np.sort(view.mass)[:, -2:]  # a fifth of 7, rounded up
        assert view.top_fifth == pytest.approx(best.sum(-1).mean(), abs=1e-5)


def test_keeping_everything_covers_every_token():
    (view, _) = views(call(), config(sparsity=0.0), token=(1, 2, 3))
    assert view.recall == pytest.approx(1)
    assert set(view.covering.flatten().tolist()) == {KEPT, QUERY}
    assert (view.covering == QUERY).sum() == 16 and view.covering[1, 2, 3] == QUERY


def test_the_covering_shows_the_kept_blocks_of_the_block_of_the_token():
    # raster order, text last: a block is two rows of 8
    (view, _) = views(call(), config(order="raster"), token=(1, 3, 0))
    block = (1 * 4 + 3) // 2
    rows = view.covering.reshape(6, 16)
    for number in range(6):
        expected = QUERY if number == block else KEPT if view.kept[block, number] else 0
        assert (rows[number] == expected).all()


def test_a_token_outside_the_grid_is_one_clear_line():
    with pytest.raises(
        ConfigError, match="--query must lie in the grid of 3 x 4 x 8 tokens, got 3,0,0"
    ):
        views(call(), config(), token=(3, 0, 0))
