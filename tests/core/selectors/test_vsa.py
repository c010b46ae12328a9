"""Pooled cubes, against softmax over cubes written out."""

import pytest
import torch

from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.order import token_places
from rainfusion_core.selectors import SELECTORS
from tests.selecting import call_of, kept_lists, order_of, qk, select


def test_cubes_stand_one_after_the_other():
    order = order_of(LatentGrid(4, 8, 8), name="4x4x4", block_size=64, sink=False)
    places = token_places(order).split(64)
    assert [(p.amin(0).tolist(), p.amax(0).tolist()) for p in places] == [
        ([0, 0, 0], [3, 3, 3]), ([0, 0, 4], [3, 3, 7]),
        ([0, 4, 0], [3, 7, 3]), ([0, 4, 4], [3, 7, 7]),
    ]  # fmt: skip


@pytest.mark.parametrize("block_size", [64, 128, 256])
def test_a_block_has_the_mass_of_its_cubes(block_size):
    order = order_of(LatentGrid(5, 9, 11), Text(40), block_size=block_size, sink=False)
    q, k = qk(order, heads=2, key_heads=1)
    lengths = torch.tensor([order.tokens, order.tokens - 39])
    call = call_of(order.layout, "vsa", scale=0.7, key_lengths=lengths)
    scores = SELECTORS["vsa"].scores(q, k, order, call).exp()
    cubes = block_size // 64
    for b, h in ((0, 0), (0, 1), (1, 0), (1, 1)):
        queries = torch.stack([x.mean(0) for x in q[b, h].double().split(64)])
        keys = torch.stack([x.mean(0) for x in k[b, 0, : lengths[b]].double().split(64)])
        coarse = (queries @ keys.T * 0.7).softmax(-1)
        wanted = torch.zeros(order.blocks, order.blocks)
        for i in range(len(queries)):
            for j in range(len(keys)):
                wanted[i // cubes, j // cubes] += coarse[i, j]
        torch.testing.assert_close(scores[b, h], wanted, atol=1e-5, rtol=1e-4)


def test_with_blocks_of_64_it_is_a_top_k_of_pooled_scores():
    order = order_of(LatentGrid(1, 16, 40), block_size=64)
    q, k = qk(order)
    kept = select("vsa", q, k, order, sparsity=0.6)
    assert kept_lists(kept) == kept_lists(select("rainfusion2", q, k, order, sparsity=0.6))
