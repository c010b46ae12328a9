"""Random choices: repeatable, different from step to step and layer to layer, and fair."""

import torch

from rainfusion_core.blocks import kept_mask
from rainfusion_core.layout import LatentGrid
from rainfusion_core.selectors import Memory
from tests.selecting import order_of, qk, select

ORDER = order_of(LatentGrid(1, 16, 16))


def chosen(step=0, layer=0, seed=0):
    q, k = qk(ORDER, heads=8)
    memory = Memory(step=step, layer=layer)
    return kept_mask(
        select("random", q, k, ORDER, sparsity=0.75, memory=memory, options={"seed": seed})
    )


def test_a_choice_can_be_repeated_without_touching_the_global_seed():
    state = torch.random.get_rng_state()
    first = chosen()
    torch.random.set_rng_state(state)
    assert chosen().equal(first)
    assert not torch.random.get_rng_state().equal(state)  # by the test's own q and k alone


def test_steps_layers_and_seeds_choose_differently():
    every = [chosen(), chosen(step=1), chosen(layer=1), chosen(seed=1), chosen(step=1, layer=1)]
    assert all(not a.equal(b) for n, a in enumerate(every) for b in every[:n])


def test_every_block_has_the_same_chance():
    shares = torch.stack([chosen(step=step).float().mean((0, 1)) for step in range(40)]).mean(0)
    # 640 draws a cell, each with probability 1/4: a standard deviation of 0.017
    assert (shares - 0.25).abs().max() < 0.09
