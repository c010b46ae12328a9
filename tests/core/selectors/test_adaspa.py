"""When it searches, what it remembers, and how heads share the budget."""

import pytest
import torch

from rainfusion_core.errors import ConfigError
from rainfusion_core.layout import LatentGrid, Text
from rainfusion_core.selection.mass import block_mass
from rainfusion_core.selectors import SELECTORS, Memory
from rainfusion_core.selectors.adaspa import head_counts
from tests.selecting import call_of, kept_lists, order_of, qk, select

ORDER = order_of(LatentGrid(1, 10, 16), name="raster")


def test_the_first_search_finds_the_exact_mass():
    order = order_of(LatentGrid(2, 5, 7), Text(9), name="raster", sink=False)
    q, k = qk(order, key_heads=1)
    lengths = torch.tensor([order.tokens, order.tokens - 7])
    call = call_of(order.layout, "adaspa", scale=0.5, key_lengths=lengths)
    scores = SELECTORS["adaspa"].scores(q, k, order, call)
    mass = block_mass(q, k, 16, scale=0.5, key_lengths=lengths)
    torch.testing.assert_close(scores.exp(), mass, atol=1e-6, rtol=1e-4)


def test_a_later_search_divides_by_the_sums_of_the_earlier_one():
    q, k = qk(ORDER, heads=1)
    call = call_of(ORDER.layout, "adaspa")
    SELECTORS["adaspa"].scores(q, k, ORDER, call)
    scores = SELECTORS["adaspa"].scores(q, k + 0.1, ORDER, call)
    old, new = ((q @ x.mT).exp() for x in (k, k + 0.1))
    shares = new / old.sum(-1, keepdim=True)
    wanted = shares.unflatten(-1, (10, 16)).sum(-1).unflatten(-2, (10, 16)).mean(-2)
    torch.testing.assert_close(scores.exp(), wanted, atol=1e-5, rtol=1e-3)


def test_it_searches_at_the_first_call_and_at_its_steps_and_keeps_the_choice_between():
    memory, seen = Memory(steps=10), []
    for step in range(2, 10):
        memory.step = step
        seen.append(select("adaspa", *qk(ORDER), ORDER, sparsity=0.7, memory=memory))
    new = [a is not b for a, b in zip(seen, [None, *seen], strict=False)]
    # a run of 10 steps searches at 2 and 6; step 2 is the first call
    assert [step for step, found in enumerate(new, start=2) if found] == [2, 6]


def test_a_first_call_between_two_search_steps_searches_then_and_at_the_next():
    memory, seen = Memory(steps=10), []
    for step in range(4, 8):
        memory.step = step
        seen.append(select("adaspa", *qk(ORDER), ORDER, sparsity=0.7, memory=memory))
    assert seen[0] is seen[1] and seen[1] is not seen[2] and seen[2] is seen[3]


def test_heads_whose_mass_is_concentrated_give_blocks_to_those_whose_mass_is_not():
    # two heads with all mass in 2 of 10 blocks, one between, three uniform
    scores = torch.zeros(1, 6, 10, 10)
    scores[0, :2, :, :2] = 20
    scores[0, 2, :, :5] = 1
    call = call_of(ORDER.layout, "adaspa", sparsity=0.6)
    counts = head_counts(scores, ORDER, call)[0, :, 0, 0].tolist()
    # 0.6: 4 blocks; (1 + 0.6) / 2 = 0.8: 2 blocks; (3 * 0.6 - 1) / 2 = 0.4: 6 blocks
    assert counts[:3] == [2, 2, 4] and sorted(counts[3:]) == [4, 6, 6]
    assert sum(counts) == 6 * 4


def test_no_more_than_half_of_the_heads_give():
    scores = torch.zeros(1, 4, 10, 10)
    scores[..., 0] = 30
    counts = head_counts(scores, ORDER, call_of(ORDER.layout, "adaspa", sparsity=0.6))
    assert sorted(counts.flatten().tolist()) == [2, 2, 6, 6]


def test_every_head_keeps_as_much_if_it_is_not_adaptive():
    q, k = qk(ORDER)
    options = {"adaptive": False}
    kept = select("adaspa", q * 9, k, ORDER, sparsity=0.7, options=options)
    assert kept_lists(kept) == kept_lists(select("oracle", q * 9, k, ORDER, sparsity=0.7))


def test_search_steps_that_are_no_numbers_are_refused():
    memory = Memory(steps=10)
    select("adaspa", *qk(ORDER), ORDER, memory=memory)
    with pytest.raises(ConfigError) as caught:
        select("adaspa", *qk(ORDER), ORDER, memory=memory, options={"search": "soon"})
    assert str(caught.value) == "method option search must list shares of the run, got 'soon'"
