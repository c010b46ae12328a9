"""Heads made to look along the frame or along time, and the band that both get."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selectors import SELECTORS
from tests.selecting import call_of, kept_lists

GRID = LatentGrid(9, 6, 8)


def looking(*kinds, layout, strength=20.0):
    """q = k whose heads attend to their own frame, or to their own place in every frame."""
    heads = []
    text_first = isinstance(layout.segments[0], Text)
    frame, place = torch.arange(GRID.tokens) // 48, torch.arange(GRID.tokens) % 48
    for kind in kinds:
        index, count = (frame, 9) if kind == "frame" else (place, 48)
        one_hot = torch.nn.functional.one_hot(index, count).float() * strength
        one_hot = torch.nn.functional.pad(one_hot, (0, 48 - count))
        text = torch.zeros(layout.text_tokens, 48)
        heads.append(torch.cat([text, one_hot] if text_first else [one_hot, text]))
    return torch.stack(heads)[None]


def chosen(q, layout, **settings):
    call = call_of(layout, "svg1", block_size=16, scale=0.1, **settings)
    order = SELECTORS["svg1"].ordered(q, q, call)
    return order, SELECTORS["svg1"].select(order.permute(q), order.permute(q), order, call)


@pytest.mark.parametrize(
    "layout",
    [TokenLayout((GRID,)), TokenLayout((GRID, Text(20))), TokenLayout((Text(20), GRID))],
    ids=["video", "text-last", "text-first"],
)
@pytest.mark.parametrize("sink", [True, False])
def test_each_head_gets_the_order_in_which_its_tokens_are_neighbours(layout, sink):
    q = looking("frame", "place", "frame", "place", layout=layout)
    order, _ = chosen(q, layout, sparsity=0.7, sink=sink)
    assert order.found.tolist() == [[0, 1, 0, 1]]


def test_the_mask_is_one_band_for_all_heads():
    layout = TokenLayout((LatentGrid(1, 8, 16),))  # an image: 8 blocks, nothing pinned
    q = torch.randn(1, 3, 128, 4)
    _, kept = chosen(q, layout, sparsity=0.66)
    # of 64 pairs 22 are wanted; the diagonal has 8, with both neighbours 22
    rows = [[0, 1], *[[i - 1, i, i + 1] for i in range(1, 7)], [6, 7]]
    assert kept_lists(kept) == [[rows] * 3]


def test_the_first_frame_is_kept_in_both_orders():
    layout = TokenLayout((GRID,))
    q = looking("frame", "place", layout=layout)
    order, kept = chosen(q, layout, sparsity=0.9, sink=True)
    mask = kept_mask(kept)
    for head in range(2):
        blocks = order.restore[0, head, :48] // 16
        assert mask[0, head][:, blocks].all()


def test_more_mass_is_kept_than_in_the_order_it_did_not_choose():
    layout = TokenLayout((GRID,))
    q = looking("frame", "place", layout=layout)
    order, kept = chosen(q, layout, sparsity=0.8, sink=False)
    from rainfusion_core.selection.mass import block_mass, recall

    def recalled(x):
        mass = block_mass(x, x, 16, scale=0.1)
        return recall(mass, kept_mask(kept), GRID.tokens, 16)

    right, wrong = order.permute(q), order.permute(q.flip(1)).flip(1)
    assert (recalled(right) > 0.9).all()
    assert (recalled(wrong).flip(1) < recalled(right)).all()
