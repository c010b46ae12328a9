import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainfusion_core.budget import BUDGETS, chosen_per_row, density_bounds
from rainfusion_core.errors import ConfigError, UnknownName

PAPER = [
    pytest.param(10, 0.0, 10, id="keep-all"),
    pytest.param(10, 0.8, 2, id="1-0.8-is-a-hair-below-0.2"),
    pytest.param(10, 0.7, 3, id="1-0.7-is-a-hair-above-0.3"),
    pytest.param(10, 0.9, 1, id="1-0.9-is-a-hair-below-0.1"),
    pytest.param(100, 0.45, 55, id="100-times-0.55-is-a-hair-above-55"),
    pytest.param(591, 0.8, 119, id="118.2-rounds-up"),
    pytest.param(10, 1 - 1e-12, 1, id="never-none"),
    pytest.param(1, 0.5, 1, id="one-block"),
]

TOTAL = [
    # 10 blocks, 100 pairs; a pinned block costs its row and its column
    pytest.param(10, 0, 0.8, 2, id="nothing-pinned"),
    pytest.param(10, 2, 0.5, 2, id="50-of-100-less-20-less-16-is-14-over-8-rows"),
    pytest.param(10, 1, 0.5, 3, id="50-of-100-less-10-less-9-is-31-over-9-rows"),
    pytest.param(10, 2, 0.0, 8, id="keep-all"),
    pytest.param(10, 5, 0.8, 1, id="pinned-blocks-use-the-budget-up"),
    pytest.param(10, 10, 0.8, 0, id="all-pinned"),
    pytest.param(1, 0, 0.9, 1, id="one-block"),
]

blocks_and_pinned = st.integers(1, 2000).flatmap(
    lambda blocks: st.tuples(st.just(blocks), st.integers(0, blocks))
)


@pytest.mark.parametrize(("blocks", "sparsity", "chosen"), PAPER)
@pytest.mark.parametrize("pinned_blocks", [0, 1])
def test_paper_budget_is_the_kept_share_of_all_blocks_rounded_up(
    blocks, pinned_blocks, sparsity, chosen
):
    assert chosen_per_row(blocks, pinned_blocks, sparsity=sparsity, budget="paper") == chosen


@pytest.mark.parametrize(("blocks", "pinned_blocks", "sparsity", "chosen"), TOTAL)
def test_total_budget_pays_for_pinned_rows_and_columns_first(
    blocks, pinned_blocks, sparsity, chosen
):
    assert chosen_per_row(blocks, pinned_blocks, sparsity=sparsity, budget="total") == chosen


@given(blocks_and_pinned, st.integers(0, 99))
def test_no_other_choice_comes_nearer_to_the_total_budget(blocks_and_pinned, percent):
    blocks, pinned = blocks_and_pinned
    sparsity = percent / 100
    chosen = chosen_per_row(blocks, pinned, sparsity=sparsity, budget="total")

    def miss(columns: int) -> float:
        kept = pinned * blocks + (blocks - pinned) * (pinned + columns)
        return abs(kept - (1 - sparsity) * blocks**2)

    choices = range(1, blocks - pinned + 1)
    assert chosen in choices or blocks == pinned
    assert all(miss(chosen) <= miss(other) + 1e-6 * blocks**2 for other in choices)


@given(st.integers(1, 10_000), st.integers(0, 999))
def test_paper_budget_is_exact_for_every_decimal_sparsity(blocks, thousandths):
    exact = -(-blocks * (1000 - thousandths) // 1000)
    assert chosen_per_row(blocks, 0, sparsity=thousandths / 1000, budget="paper") == exact


@pytest.mark.parametrize(
    ("blocks", "pinned", "sparsity", "lower", "upper"),
    [
        pytest.param(591, 29, 0.5, 0.525, 0.572, id="wan-720p-0.5"),
        pytest.param(591, 29, 0.64, 0.392, 0.438, id="wan-720p-0.64"),
        pytest.param(591, 29, 0.8, 0.241, 0.287, id="wan-720p-0.8"),
        pytest.param(591, 29, 0.9, 0.146, 0.192, id="wan-720p-0.9"),
        pytest.param(4, 3, 0.5, 15 / 16, 1.0, id="more-pinned-than-chosen"),
    ],
)
def test_paper_density_lies_between_full_and_no_overlap_with_pinned_blocks(
    blocks, pinned, sparsity, lower, upper
):
    bounds = density_bounds(blocks, pinned, sparsity=sparsity, budget="paper")
    assert bounds == pytest.approx((lower, upper), abs=1e-3)


def test_total_density_is_known_beforehand():
    assert density_bounds(10, 2, sparsity=0.5, budget="total") == (0.52, 0.52)


@given(blocks_and_pinned, st.floats(0, 0.999), st.sampled_from(BUDGETS))
def test_bounds_are_shares_in_ascending_order(blocks_and_pinned, sparsity, budget):
    lower, upper = density_bounds(*blocks_and_pinned, sparsity=sparsity, budget=budget)
    assert 0 < lower <= upper <= 1


@given(blocks_and_pinned, st.sampled_from(BUDGETS))
def test_sparsity_zero_keeps_every_pair(blocks_and_pinned, budget):
    assert density_bounds(*blocks_and_pinned, sparsity=0.0, budget=budget) == (1, 1)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 80, math.nan])
def test_sparsity_outside_its_interval_is_refused(sparsity):
    with pytest.raises(ConfigError) as caught:
        chosen_per_row(10, 0, sparsity=sparsity, budget="paper")
    assert str(caught.value) == f"sparsity must be in [0, 1), got {sparsity}"


def test_unknown_budget_lists_the_known_ones():
    with pytest.raises(UnknownName) as caught:
        chosen_per_row(10, 0, sparsity=0.5, budget="papers")
    assert str(caught.value) == "no budget is called 'papers'; known: paper, total"
    assert caught.value.hint == "did you mean 'paper'?"
