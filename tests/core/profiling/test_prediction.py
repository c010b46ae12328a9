import pytest

from rainfusion_core.config import SparseConfig
from rainfusion_core.profiling.prediction import (
    PassCost,
    Render,
    SparseCost,
    attention_seconds,
    denoising_seconds,
    expected_density,
    flops_share,
    sparse_share,
    sparsity_needed,
    speedup,
)

COST = PassCost(rest=3.0, attention=7.0)
EVERY = Render(steps=10, passes=2, sparse_share=1.0)


def test_denoising_by_hand():
    # 10 steps, 2 passes: 3 s of rest, 7 s of attention that becomes 2 s in three of four calls
    render = Render(steps=10, passes=2, sparse_share=0.75)
    assert denoising_seconds(COST, 2.0, render) == pytest.approx(20 * (3 + 0.25 * 7 + 0.75 * 2))
    assert speedup(COST, 2.0, render) == pytest.approx(10 / 6.25)


def test_speedup_is_amdahls():
    assert speedup(COST, 7 / 5, EVERY) == pytest.approx(1 / (0.3 + 0.7 / 5))
    assert speedup(COST, 7.0, EVERY) == 1


def test_what_both_renders_share_lowers_the_speedup():
    assert speedup(COST, 2.0, EVERY, other=100.0) == pytest.approx(300 / 200)


def test_share_of_sparse_calls_counts_dense_steps_and_layers():
    config = SparseConfig(dense_steps=0.25, dense_last_steps=1, dense_layers=(0,))
    # of 8 steps 2 + 1 are dense, of 4 layers one
    assert sparse_share(config, steps=8, layers=4) == pytest.approx(5 / 8 * 3 / 4)
    assert sparse_share(SparseConfig(sparsity=0), steps=8, layers=4) == 0


def test_one_measured_point_is_a_line_through_zero():
    costs = [SparseCost(0.8, density=0.2, kernel=2.0, total=2.5)]
    assert attention_seconds(costs, 0.4) == pytest.approx(4.5)


def test_several_measured_points_are_a_fitted_line():
    costs = [SparseCost(0.5, 0.5, 6.0, 7.0), SparseCost(0.9, 0.1, 2.0, 3.0)]
    assert attention_seconds(costs, 0.3) == pytest.approx(5.0)
    assert attention_seconds(costs, 0.0) == pytest.approx(2.0)


def test_the_least_sparsity_that_reaches_the_target_is_found():
    costs = [SparseCost(0.5, 0.5, 3.5, 3.5), SparseCost(0.9, 0.1, 0.7, 0.7)]
    ladder = [(each / 100, 1 - each / 100) for each in range(1, 100)]
    # 10 / (3 + 7 (1 - s)) >= 2 from s = 5/7 on
    assert sparsity_needed(2.0, COST, costs, EVERY, ladder) == 0.72
    assert sparsity_needed(4.0, COST, costs, EVERY, ladder) is None


def test_expected_density_lies_between_its_bounds():
    config = SparseConfig(sparsity=0.8)
    # 10 blocks, 2 pinned: 2 dense rows, 8 rows with 2 + 2 x 8/10 blocks
    assert expected_density(10, 2, config) == pytest.approx((2 * 10 + 8 * 3.6) / 100)
    total = SparseConfig(sparsity=0.5, budget="total")
    assert expected_density(10, 2, total) == pytest.approx(0.5, abs=0.05)


def test_share_of_operations_by_hand():
    # 4 x 3 x 100 x 100 x 8 of 4 x 3 x 100 x 120 x 8 + 2 x 5000 x 100
    share = flops_share(tokens=100, text_tokens=20, parameters=5000, layers=3, width=8)
    assert share == pytest.approx(960_000 / (960_000 + 192_000 + 1_000_000))
