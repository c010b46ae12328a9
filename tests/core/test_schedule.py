import pytest

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.schedule import plan, step_count


@pytest.mark.parametrize(
    ("value", "steps", "count"),
    [(0, 20, 0), (4, 20, 4), (0.2, 20, 4), (0.1, 25, 3), (0.3, 10, 3), (1, 5, 1)],
)
def test_a_share_of_steps_is_rounded_up(value, steps, count):
    assert step_count(value, steps) == count


def test_first_and_last_steps_are_dense():
    schedule = plan(SparseConfig(dense_steps=2, dense_last_steps=0.1), steps=10, layers=4)
    dense = [step for step in range(10) if schedule.dense_reason(step, 0) == "dense step"]
    assert dense == [0, 1, 9]


def test_without_known_steps_only_the_first_are_dense():
    schedule = plan(SparseConfig(dense_steps=1, dense_last_steps=1), steps=0, layers=4)
    assert [schedule.dense_reason(step, 0) for step in range(3)] == ["dense step", None, None]


def test_dense_layers_count_from_both_ends():
    schedule = plan(SparseConfig(dense_layers=(0, -1)), steps=10, layers=4)
    assert [schedule.dense_reason(5, n) for n in range(4)] == [
        "dense layer",
        None,
        None,
        "dense layer",
    ]


def test_sparsity_zero_is_dense_everywhere():
    assert plan(SparseConfig(sparsity=0), steps=4, layers=2).dense_reason(3, 1) == "sparsity 0"


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_does_not_exist_is_refused(layer):
    with pytest.raises(ConfigError) as caught:
        plan(SparseConfig(dense_layers=(layer,)), steps=10, layers=4)
    assert str(caught.value) == f"dense_layers names layer {layer}, the model has layers 0 to 3"
