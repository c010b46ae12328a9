"""Three types of heads made to order, the mask each one gets, and RainFusion+."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.order import token_order, token_places
from rainfusion_core.selection.heads import TYPES
from rainfusion_core.selection.mass import block_mass, recall
from rainfusion_core.selectors import SELECTORS, Memory
from tests.heads import looking
from tests.selecting import call_of

GRID = LatentGrid(9, 8, 8)
LAYOUT = TokenLayout((GRID, Text(20)))
KINDS = ("spatial", "temporal", "textural")


def chosen(q, k, layout=LAYOUT, memory=None, **settings):
    call = call_of(layout, "rainfusion1", block_size=16, scale=1.0, memory=memory, **settings)
    order = SELECTORS["rainfusion1"].ordered(q, k, call)
    kept = SELECTORS["rainfusion1"].select(order.permute(q), order.permute(k), order, call)
    return order, kept


@pytest.mark.parametrize("text", [0, 20])
def test_each_type_gets_its_order(text):
    layout = TokenLayout((GRID, *[Text(text)] * bool(text)))
    q, k = looking(layout, *KINDS)
    order, _ = chosen(q, k, layout, sink=True)
    assert [TYPES[kind] for kind in order.found[0].tolist()] == list(KINDS)
    for head, name in enumerate(["thw", "hwt", "dither"]):
        alone = token_order(layout, name=name, block_size=16)
        assert order.gather[0, head].equal(alone.gather)


def test_spatial_and_temporal_heads_get_a_band_and_textural_ones_leading_columns():
    q, k = looking(LAYOUT, *KINDS)
    order, kept = chosen(q, k, sparsity=0.7)
    mask, pinned = kept_mask(kept)[0], order.pinned
    free = mask[:, ~pinned][:, :, ~pinned]
    blocks = torch.arange(free.shape[-1])
    for head in range(2):
        band = (blocks[:, None] - blocks).abs() <= int(free[head, 0].sum()) - 1
        assert free[head].equal(band)
    assert free[2].equal((blocks < int(free[2, 0].sum())).expand_as(free[2]))


def test_half_of_a_textural_heads_keys_are_the_chessboard_of_every_frame():
    order = token_order(TokenLayout((GRID,)), name="dither", block_size=16)
    places = token_places(order)[:256]  # half of the eight frames behind the first
    assert ((places[:, 1] + places[:, 2]) % 2 == 0).all()
    assert places[:, 0].bincount().tolist() == [0, *[32] * 8]


def test_each_head_keeps_more_mass_in_its_own_order_than_a_band_of_the_raster_keeps():
    q, k = looking(LAYOUT, "spatial", "temporal")
    order, kept = chosen(q, k, sparsity=0.7)
    mass = block_mass(order.permute(q), order.permute(k), 16, scale=1.0)
    assert (recall(mass, kept_mask(kept), LAYOUT.tokens, 16) > 0.9).all()


def test_recognition_is_repeated_as_often_as_asked():
    spatial, temporal = looking(LAYOUT, "spatial"), looking(LAYOUT, "temporal")
    for refresh, kinds in ((1, [0, 1, 1]), (2, [0, 0, 1]), (0, [0, 0, 0])):
        memory, found = Memory(), []
        for step, (q, k) in enumerate([spatial, temporal, temporal]):
            memory.step = step
            order, _ = chosen(q, k, memory=memory, options={"refresh": refresh})
            found.append(order.found.item())
        assert found == kinds


def test_rainfusion_plus_takes_the_narrowest_mask_that_reaches_the_mass():
    q, k = looking(LAYOUT, "spatial", "temporal", "textural")
    counts = {}
    for mass in (0.2, 0.9, 0.999):
        _, kept = chosen(q, k, mass=mass, budget="total")
        counts[mass] = kept.count.sum(-1)[0].tolist()
    assert all(a <= b <= c for a, b, c in zip(*counts.values(), strict=True))
    assert counts[0.2][0] < counts[0.999][2]
    half = chosen(q, k, sparsity=0.5, budget="total")[1].count.sum(-1)[0].tolist()
    # the textural head reaches no target, and is given the widest mask
    assert counts[0.999][2] == half[2]
