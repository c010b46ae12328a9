"""Head types of heads that were made to have one, and the recall against softmax written out."""

from math import sqrt

import pytest
import torch

from rainfusion_core.errors import UnsupportedLayout
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selection.heads import TYPES, head_types
from tests.heads import looking

GRID = LatentGrid(9, 6, 8)


@pytest.mark.parametrize(
    "segments", [(GRID,), (GRID, Text(9)), (Text(9), GRID)], ids=["none", "last", "first"]
)
def test_heads_are_recognised_wherever_the_text_is(segments):
    kinds = ["textural", "spatial", "temporal", "spatial"]
    layout = TokenLayout(segments)
    found = head_types(*looking(layout, *kinds), layout, scale=1.0)
    assert [TYPES[kind] for kind in found.kinds[0].tolist()] == kinds


def test_recalls_are_shares_of_softmax_mass_in_a_band():
    layout = TokenLayout((GRID,))
    q, k = torch.randn(2, 2, 3, GRID.tokens, 8)
    found = head_types(q, k, layout, scale=0.7, sparsity=0.64)
    half = int(48 * (1 - sqrt(0.64)))
    rest = torch.arange(48, GRID.tokens)  # without the first frame
    for tokens, recall in ((rest[:48], found.near), (rest[::8], found.own)):
        for b, h in ((0, 0), (1, 2)):
            weights = (q[b, h, tokens] @ k[b, h, tokens].T * 0.7).softmax(-1)
            inside = sum(weights[i, max(0, i - half) : i + half + 1].sum() for i in range(48)) / 48
            torch.testing.assert_close(recall[b, h], inside)


def test_the_threshold_decides_and_temporal_comes_first():
    layout = TokenLayout((GRID,))
    q = torch.zeros(
        1, 1, GRID.tokens, 4
    )  # uniform attention: both recalls are the area of the band
    area = head_types(q, q, layout, scale=1.0).near.item()
    assert 0.4 < area < 0.55
    names = [
        TYPES[head_types(q, q, layout, scale=1.0, threshold=t).kinds.item()]
        for t in (area - 0.01, area + 0.01)
    ]
    assert names == ["temporal", "textural"]


def test_an_image_is_looked_at_whole():
    layout = TokenLayout((LatentGrid(1, 6, 8),))
    q, k = torch.randn(2, 1, 2, 48, 8)
    found = head_types(q, k, layout, scale=1.0)
    assert found.near.equal(found.own)


def test_text_alone_has_no_head_types():
    layout = TokenLayout((Text(9),))
    with pytest.raises(UnsupportedLayout, match="head types need a latent grid"):
        head_types(*torch.randn(2, 1, 1, 9, 4), layout, scale=1.0)
