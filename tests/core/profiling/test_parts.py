import time

import pytest
import torch
from torch import nn

from rainfusion_core.adapters.wan import WAN
from rainfusion_core.loading.random_weights import random_inputs
from rainfusion_core.profiling.parts import (
    CROSS,
    MATRICES,
    NORMS,
    REST,
    PartTimer,
    PartTimes,
    layer_names,
)
from tests import pipelines

CPU = torch.device("cpu")


class Slow(nn.Module):
    """Sleeps for itself, and lets its submodules sleep."""

    def __init__(self, seconds, *inner):
        super().__init__()
        self.seconds, self.inner = seconds, nn.ModuleList(inner)

    def forward(self, x):
        time.sleep(self.seconds)
        for module in self.inner:
            x = module(x)
        return x


class SlowNorm(Slow):
    pass


def test_a_module_counts_what_its_submodules_do_not():
    model, timer = Slow(0.03, SlowNorm(0.02), SlowNorm(0.01)), PartTimer(CPU)
    timer.watch(model, WAN.self_attention)
    model(torch.zeros(1))
    times = timer.take()
    assert times.layers == {}
    assert times.outside[REST] == pytest.approx(0.03, abs=0.01)
    assert times.outside[NORMS] == pytest.approx(0.03, abs=0.01)
    assert timer.take().total == 0


def test_every_part_of_a_wan_layer_is_found_and_the_sum_is_the_whole():
    model, timer = pipelines.wan_transformer(layers=2), PartTimer(CPU)
    inputs = random_inputs(model, (2, 8, 8), 5)
    timer.watch(model, WAN.self_attention)
    with torch.no_grad():
        model(**inputs)
    root = timer._records[0].span.seconds
    times = timer.take()
    assert set(times.layers) == {MATRICES, CROSS, NORMS, REST}
    assert set(times.outside) == {MATRICES, NORMS, REST}
    assert times.total == pytest.approx(root, rel=1e-6)


def test_nothing_is_timed_after_remove():
    model, timer = Slow(0.0), PartTimer(CPU)
    timer.watch(model, WAN.self_attention)
    timer.remove()
    model(torch.zeros(1))
    assert timer.take().total == 0


def test_layers_are_what_holds_a_self_attention():
    model = pipelines.wan_transformer(layers=2)
    assert layer_names(model, WAN.self_attention) == {"blocks.0", "blocks.1"}


def test_layers_are_multiplied_and_the_outside_is_not():
    times = PartTimes({REST: 2.0, NORMS: 1.0}, {REST: 0.5})
    assert times.scaled(15) == {NORMS: 15.0, REST: 30.5}
