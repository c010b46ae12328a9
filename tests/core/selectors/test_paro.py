"""Heads whose attention is blocklike along one axis alone, and what is found once and kept."""

import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import AXES
from rainfusion_core.selection.mass import block_mass
from rainfusion_core.selectors import SELECTORS, Memory
from tests.selecting import call_of

GRID = LatentGrid(8, 8, 8)
LAYOUT = TokenLayout((GRID, Text(12)))


def lines(axis):
    """q = k (1, 1, tokens, 64) that attend along one axis: to tokens with the same two others."""
    places = torch.stack(torch.meshgrid(*[torch.arange(8)] * 3, indexing="ij"), -1).view(-1, 3)
    others = [a for a in range(3) if a != axis]
    index = places[:, others[0]] * 8 + places[:, others[1]]
    tokens = torch.nn.functional.one_hot(index, 64).float() * 20
    return torch.cat([tokens, torch.zeros(12, 64)])[None, None]


def chosen(q, memory=None, **settings):
    call = call_of(LAYOUT, "paro", block_size=16, scale=0.05, memory=memory, **settings)
    order = SELECTORS["paro"].ordered(q, q, call)
    return order, SELECTORS["paro"].select(order.permute(q), order.permute(q), order, call)


def test_each_head_gets_an_order_whose_last_axis_is_the_one_it_looks_along():
    q = torch.cat([lines(axis) for axis in (0, 1, 2, 0)], dim=1)
    order, _ = chosen(q, sparsity=0.95)
    names = [list(AXES)[kind] for kind in order.found[0].tolist()]
    assert [name[-1] for name in names] == ["t", "h", "w", "t"]


def test_the_kept_blocks_are_those_of_most_mass_in_that_order():
    q = torch.randn(1, 2, LAYOUT.tokens, 8) * 6
    order, kept = chosen(q, sparsity=0.75)
    mass = block_mass(order.permute(q), order.permute(q), 16, scale=0.05)
    mask = kept_mask(kept)
    free = ~(order.pinned | order.pinned[:, None])
    for head in range(2):
        inside, outside = mass[0, head][mask[0, head] & free], mass[0, head][~mask[0, head]]
        first = mass[0, head].amax(-1)
        # what is kept is better than what is not, apart from the one block a row needs
        assert (inside[~torch.isin(inside, first)].min() >= outside.max()).all()
    assert mask.any(-1).all()


def test_orders_and_masks_are_kept_for_the_rest_of_the_run():
    memory = Memory()
    order, kept = chosen(torch.randn(1, 2, LAYOUT.tokens, 8), memory)
    later_order, later = chosen(torch.randn(1, 2, LAYOUT.tokens, 8), memory)
    assert later is kept and later_order.gather.equal(order.gather)
