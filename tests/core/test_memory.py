import pytest
import torch

from rainfusion_core.errors import ConfigError
from rainfusion_core.memory import (
    activation_bytes,
    check_room,
    fitting_layers,
    free_bytes,
    total_bytes,
)


def fit(wanted, free):
    return fitting_layers(wanted, layer_bytes=100, other_bytes=500, free=free, what="7 tokens")


def test_free_memory_is_some_of_all_memory():
    cpu = torch.device("cpu")
    assert 0 < free_bytes(cpu) <= total_bytes(cpu)


def test_as_many_layers_as_fit_into_nine_tenths():
    assert fit(4, 1000) == 4
    assert fit(4, 890) == 3
    assert fit(40, 1000) == 4


def test_too_little_memory_for_one_layer_is_refused_with_both_sizes():
    with pytest.raises(ConfigError) as caught:
        fitting_layers(2, layer_bytes=2**30, other_bytes=2**30, free=2**31, what="7 tokens on cpu")
    assert str(caught.value) == (
        "memory is too small for 7 tokens on cpu: one layer needs 2.22 GiB, 2.00 GiB are free"
    )
    assert caught.value.hint == "ask for a smaller --size or fewer --frames"


def test_activations_follow_the_fullest_place():
    assert activation_bytes(10, 4, 1, 2) == 10 * (2 * 36 + 32)
    assert activation_bytes(10, 4, 100, 2) == 10 * (2 * 212 + 32)


def test_what_does_not_fit_together_is_refused_with_every_part():
    needed = {"weights": 3 * 2**30, "frames": 2**30}
    check_room(needed, free=4 * 2**30, where="cpu")
    with pytest.raises(ConfigError, match=r"3.0 GiB for weights and 1.0 GiB for frames, 3.5 GiB"):
        check_room(needed, free=int(3.5 * 2**30), where="cpu")
