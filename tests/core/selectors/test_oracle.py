"""The exact mass, against softmax written out token by token, and that nothing keeps more of it."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.selectors import SELECTORS
from tests.selecting import call_of, order_of, qk, select


def masses(q, k, order, scale, keys):
    """(query_blocks, key_blocks) of one head, from the definition."""
    weights = (q.double() @ k[:keys].double().T * scale).softmax(-1)
    size = order.block_size
    rows = [part.mean(0) for part in weights.split(size)]
    blocks = [[part.sum() for part in row.split(size)] for row in rows]
    missing = order.blocks - len(blocks[0])
    return torch.tensor([[*row, *[0.0] * missing] for row in blocks])


def test_scores_are_the_logarithm_of_the_mass_of_each_pair():
    order = order_of(LatentGrid(3, 5, 7), Text(9))
    q, k = qk(order, key_heads=1)
    lengths = torch.tensor([order.tokens, order.tokens - 7])
    call = call_of(order.layout, "oracle", scale=0.3, key_lengths=lengths)
    scores = SELECTORS["oracle"].scores(q, k, order, call)
    for b in range(2):
        for h in range(3):
            wanted = masses(q[b, h], k[b, 0], order, 0.3, int(lengths[b]))
            torch.testing.assert_close(scores[b, h].exp(), wanted.float(), atol=1e-6, rtol=1e-4)


def test_no_method_with_as_many_blocks_keeps_more_mass():
    order = order_of(LatentGrid(1, 12, 16))
    q, k = (x * 2 for x in qk(order))
    call = call_of(order.layout, "oracle")
    mass = SELECTORS["oracle"].scores(q, k, order, call).exp()

    def kept_mass(method):
        return (mass * kept_mask(select(method, q, k, order, sparsity=0.7))).sum(-1)

    best = kept_mass("oracle")
    for method in ("rainfusion2", "random", "local", "xattention"):
        assert (kept_mass(method) <= best + 1e-5).all()
        assert kept_mass(method).mean() < best.mean()


@pytest.mark.parametrize("mass", [0.3, 0.6, 0.9])
def test_a_mass_target_is_met_by_the_true_mass_and_with_no_block_to_spare(mass):
    order = order_of(LatentGrid(3, 8, 8), Text(9), sink=False)
    q, k = (x * 2 for x in qk(order))
    call = call_of(order.layout, "oracle", scale=0.3)
    true = SELECTORS["oracle"].scores(q, k, order, call).exp()
    kept = kept_mask(select("oracle", q, k, order, scale=0.3, mass=mass, budget="total"))
    assert ((true * kept).sum(-1) >= mass - 1e-5).all()
    # without its least block a row of free queries misses the target
    free = ~order.pinned
    chosen = (true * (kept & free)).masked_fill(~(kept & free), float("inf"))
    least = chosen.amin(-1)
    assert ((true * kept).sum(-1) - least < mass + 1e-5)[..., free].all()
