"""The gate of self-similarity, by hand, and what it does to rows and columns."""

import pytest
import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid
from rainfusion_core.selectors.sparge import self_similarity
from tests.selecting import kept_lists, order_of, qk, select

GATE = {"similarity": 0.6, "smooth": False}
EIGHT = order_of(LatentGrid(1, 1, 128), name="raster")


def alike(order, batch=1, heads=2):
    """q and k whose blocks are each nearly one direction."""
    blocks = torch.randn(2, batch, heads, order.blocks, 8)
    tokens = blocks.repeat_interleave(order.block_size, -2)[..., : order.tokens, :]
    return tokens + 0.01 * torch.randn_like(tokens)


def test_self_similarity_is_the_mean_cosine_of_all_pairs():
    # one block of (1,0), (0,2): cosines 1, 0, 0, 1; one of (3,4), (6,8): all 1; a short one of (1,1), (-2,-2)
    x = torch.tensor([[1, 0], [0, 2], [3, 4], [6, 8], [1, 1], [-2, -2]]).float()[None, None]
    torch.testing.assert_close(self_similarity(x, 2), torch.tensor([[[0.5, 1.0, 0.0]]]))


def test_self_similarity_against_a_plain_loop():
    x = torch.randn(1, 2, 23, 5)
    found = self_similarity(x, 8, torch.tensor([21]))
    for h in range(2):
        for number, block in enumerate(x[0, h, :21].split(8)):
            cosines = [torch.cosine_similarity(a, b, dim=0) for a in block for b in block]
            torch.testing.assert_close(found[0, h, number], torch.stack(cosines).mean())


def test_blocks_that_are_not_alike_in_themselves_are_kept_whole():
    q, k = alike(EIGHT)
    q[:, 0, 32:48] = torch.randn(16, 8)  # query block 2 of head 0
    k[:, 1, 80:96] = torch.randn(16, 8)  # key block 5 of head 1
    mask = kept_mask(select("sparge", q, k, EIGHT, sparsity=0.75, options=GATE))
    assert mask[0, 0, 2].all() and mask[0, 1, :, 5].all()
    rows = mask.sum(-1)
    assert rows[0, 0].tolist() == [2, 2, 8, 2, 2, 2, 2, 2]
    assert rows[0, 1].tolist() == [3] * 8


def test_a_gate_below_every_cosine_leaves_rainfusion2s_choice():
    q, k = qk(EIGHT)
    kept = select("sparge", q, k, EIGHT, sparsity=0.6, options={"similarity": -0.1})
    assert kept_lists(kept) == kept_lists(select("rainfusion2", q, k, EIGHT, sparsity=0.6))


def test_keys_with_a_common_part_are_alike_unless_that_part_is_taken_off():
    q, k = qk(EIGHT)
    q, k = q + 100, k + 100
    kept = select("sparge", q, k, EIGHT, sparsity=0.75, options=GATE)
    assert kept.density == 0.25
    options = {"similarity": 0.6}  # and centred
    assert select("sparge", q, k, EIGHT, sparsity=0.75, options=options).density == 1


def test_the_gate_is_nearly_open_for_a_fixed_share_and_strict_for_a_mass():
    q, k = qk(EIGHT)
    found = self_similarity(q, 16)
    assert ((found > -0.1) & (found < 0.6)).all()
    assert select("sparge", q, k, EIGHT, sparsity=0.75).density == 0.25
    assert select("sparge", q, k, EIGHT, mass=0.1).density == 1


@pytest.mark.parametrize("value", ["strict", 2, -1.5])
def test_another_gate_is_refused(value):
    with pytest.raises(ConfigError, match=r"similarity must be auto or in \[-1, 1\], got"):
        select("sparge", *qk(EIGHT), EIGHT, options={"similarity": value})


def test_the_total_budget_pays_for_what_the_gate_keeps():
    q, k = alike(EIGHT)
    q[:, 0, 32:48] = torch.randn(16, 8)
    options = GATE
    kept = select("sparge", q, k, EIGHT, sparsity=0.5, budget="total", options=options)
    # 32 pairs; the mixed row takes 8, 24 are left for 7 rows: 3.43, so 3 each
    assert kept.count[0, 0].tolist() == [3, 3, 8, 3, 3, 3, 3, 3]
    assert kept.count[0, 1].tolist() == [4] * 8


@pytest.mark.parametrize("mass", [0.3, 0.6, 0.9])
def test_a_mass_target_is_reached_by_the_blocks_that_are_alike(mass):
    q, k = alike(EIGHT)
    mask = kept_mask(select("sparge", q, k, EIGHT, mass=mass, options=GATE))
    means = [x.unflatten(-2, (8, 16)).mean(-2) for x in (q, k)]
    predicted = (means[0] @ means[1].mT).softmax(-1)
    assert ((predicted * mask).sum(-1) >= mass - 1e-4).all()
    least = (predicted.masked_fill(~mask, 2)).amin(-1)
    # without its least block no row would reach it
    assert ((predicted * mask).sum(-1) - least < mass).all()


def test_other_keys_make_another_choice_and_more_sparsity_keeps_less():
    (q, k), (_, other) = alike(EIGHT), alike(EIGHT)
    options = GATE
    kept, less = (select("sparge", q, k, EIGHT, sparsity=s, options=options) for s in (0.5, 0.8))
    assert not kept.index.equal(
        select("sparge", q, other, EIGHT, sparsity=0.5, options=options).index
    )
    assert kept.density > less.density
