"""Mass, recall and rank correlation against values worked out by hand and by full softmax."""

import math

import pytest
import torch

from rainfusion_core.blocks import kept_from_mask, kept_mask
from rainfusion_core.selection.mass import (
    best_recall,
    block_mass,
    rank_correlation,
    recall,
    relative_error,
)
from tests.shapes import SHAPES


def full_softmax(q, k, scale, lengths):
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = q.float() @ k.float().mT * scale
    for item, length in enumerate(lengths):
        logits[item, :, :, int(length) :] = -math.inf
    return logits.softmax(-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_mass_is_the_block_sum_of_the_softmax(shape, padded):
    q, k, _ = shape.qkv()
    lengths = shape.lengths() if padded else torch.full((shape.batch,), shape.tokens)
    found = block_mass(q, k, shape.block_size, scale=0.7, key_lengths=lengths if padded else None)
    weights = full_softmax(q, k, 0.7, lengths)
    for i, rows in enumerate(weights.split(shape.block_size, -2)):
        for j, part in enumerate(rows.split(shape.block_size, -1)):
            torch.testing.assert_close(found[..., i, j], part.sum(-1).mean(-1))
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))


def test_mass_by_hand():
    # one head, tokens of 1 number: logits 0 and log 3, blocks of one token
    q, k = (
        torch.tensor([1.0, 0.0]).view(1, 1, 2, 1),
        torch.tensor([0.0, math.log(3)]).view(1, 1, 2, 1),
    )
    expected = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    torch.testing.assert_close(block_mass(q, k, 1, scale=1.0)[0, 0], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_of_kept_blocks_is_the_mask_they_were_made_of(shape):
    mask = torch.rand(shape.batch, shape.heads, shape.blocks, shape.blocks) < 0.4
    assert torch.equal(kept_mask(kept_from_mask(mask, shape.block_size)), mask)


def test_recall_weighs_a_short_last_block_by_its_queries():
    mass = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).view(1, 1, 2, 2)
    mask = torch.tensor([[False, True], [False, True]]).view(1, 1, 2, 2)
    assert recall(mass, mask, 5, 4).item() == pytest.approx((4 * 0.75 + 1 * 0.1) / 5)
    assert best_recall(mass, mask, 5, 4).item() == pytest.approx((4 * 0.75 + 1 * 0.9) / 5)


def test_no_choice_beats_the_best_one_and_the_best_one_reaches_it():
    mass = torch.rand(2, 3, 7, 7).softmax(-1)
    mask = torch.rand(mass.shape) < 0.3
    best = best_recall(mass, mask, 97, 16)
    assert (recall(mass, mask, 97, 16) <= best + 1e-6).all()
    ranks = mass.argsort(-1, descending=True).argsort(-1)
    torch.testing.assert_close(recall(mass, ranks < mask.sum(-1, keepdim=True), 97, 16), best)


def test_rank_correlation_by_hand():
    mass = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 1, 1, 4)
    rows = {
        (1, 2, 3, 4): 1.0,
        (4, 3, 2, 1): -1.0,
        (1, 2, 4, 3): 0.8,
        (1, 1, 2, 2): 2 / math.sqrt(5),
    }
    for scores, expected in rows.items():
        found = rank_correlation(torch.tensor(scores).view(1, 1, 1, 4), mass)
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_rows_without_variation_do_not_count():
    mass = torch.tensor([[0.1, 0.2, 0.7]] * 2).view(1, 1, 2, 3)
    scores = torch.tensor([[1.0, 2, 3], [5, 5, 5]]).view(1, 1, 2, 3)
    assert rank_correlation(scores, mass).item() == pytest.approx(1)
    assert rank_correlation(torch.zeros(1, 1, 2, 3), mass).isnan().all()


def test_relative_error():
    dense = torch.tensor([3.0, 4.0])
    assert relative_error(dense, dense) == 0
    assert relative_error(torch.tensor([3.0, 3.0]), dense) == pytest.approx(0.2)
