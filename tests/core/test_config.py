import pytest

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName


@pytest.mark.parametrize(
    ("sparsity", "hint"),
    [
        (-0.1, None), (1.0, None), (1.2, None), (2, None), (500, None),
        (5, "for 5 % write 0.05"), (80, "for 80 % write 0.8"),
    ],
)  # fmt: skip
def test_sparsity_outside_its_interval_is_refused(sparsity, hint):
    with pytest.raises(ConfigError) as caught:
        SparseConfig(sparsity=sparsity)
    assert str(caught.value) == f"sparsity must be in [0, 1), got {sparsity:g}"
    assert caught.value.hint == hint


@pytest.mark.parametrize("value", [-1, 1.5, -0.2])
def test_dense_steps_are_a_count_or_a_share(value):
    with pytest.raises(ConfigError, match="dense_steps must be a whole number of steps or a share"):
        SparseConfig(dense_steps=value)


@pytest.mark.parametrize("size", [0, 8, 100])
def test_block_size_is_a_power_of_two(size):
    with pytest.raises(ConfigError, match=f"block_size must be a power of two.*got {size}"):
        SparseConfig(block_size=size)


def test_unknown_budget_is_refused():
    with pytest.raises(UnknownName, match="no budget is called 'all'"):
        SparseConfig(budget="all")


@pytest.mark.parametrize("mass", [0, 1, 90])
def test_a_mass_outside_its_interval_is_refused(mass):
    with pytest.raises(ConfigError, match=rf"mass must be in \(0, 1\), got {mass}"):
        SparseConfig(mass=mass)
