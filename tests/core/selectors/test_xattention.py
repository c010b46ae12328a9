"""Antidiagonal sums, against the definition token by token."""

import pytest
import torch

from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.selectors import SELECTORS
from tests.selecting import call_of, kept_lists, order_of, qk, select


def by_definition(q, k, order, stride, scale, keys):
    """(query_blocks, key_blocks) of one head: softmax over groups of keys, summed over cells."""
    tokens, groups = order.tokens, order.blocks * order.block_size // stride
    logits = torch.full((groups, groups), float("-inf"), dtype=torch.float64)
    for i in range(groups):
        for j in range(-(-keys // stride)):
            pairs = [(i * stride + stride - 1 - s, j * stride + s) for s in range(stride)]
            inside = [(a, b) for a, b in pairs if a < tokens and b < keys]
            dots = [q[a].double() @ k[b].double() for a, b in inside]
            logits[i, j] = sum(dots) * scale / stride if dots else 0.0
    cells = order.block_size // stride
    weights = logits.softmax(-1).unflatten(-1, (-1, cells)).sum(-1)
    return weights.unflatten(0, (-1, cells)).sum(1)


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_scores_are_sums_along_antidiagonals(stride):
    order = order_of(LatentGrid(2, 5, 7), Text(9), name="raster", sink=False)
    q, k = qk(order, heads=2, key_heads=1)
    lengths = torch.tensor([order.tokens, order.tokens - 6])
    options = {"stride": stride}
    call = call_of(order.layout, "xattention", scale=0.4, key_lengths=lengths, options=options)
    scores = SELECTORS["xattention"].scores(q, k, order, call)
    for b in range(2):
        for h in range(2):
            wanted = by_definition(q[b, h], k[b, 0], order, stride, 0.4, int(lengths[b]))
            real = wanted > 0
            assert scores[b, h][~real].lt(-60).all()
            torch.testing.assert_close(
                scores[b, h][real].exp(), wanted[real].float(), atol=1e-6, rtol=1e-3
            )


def test_a_vertical_line_is_found_wherever_it_stands_in_its_group():
    """Every antidiagonal of a cell crosses each of its columns once: that is the paper's argument."""
    order = order_of(LatentGrid(1, 1, 64), name="raster")
    q = torch.ones(1, 1, 64, 1)
    for column in range(32, 48):
        k = torch.zeros(1, 1, 64, 1)
        k[..., column, 0] = 40
        kept = select("xattention", q, k, order, sparsity=0.75, options={"stride": 4})
        assert kept_lists(kept) == [[[[2]] * 4]]


def test_a_stride_that_does_not_divide_the_block_is_refused():
    order = order_of(LatentGrid(1, 1, 64), name="raster")
    with pytest.raises(ConfigError) as caught:
        select("xattention", *qk(order), order, options={"stride": 6})
    assert str(caught.value) == "method option stride must divide the block size, got 6 and 128"
