import math

import numpy as np
import pytest

from rainfusion_core.study.intervals import (
    Interval,
    Mean,
    Spread,
    bootstrap,
    mean_interval,
    spread,
    student_t,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)],
)
def test_quantiles_are_those_of_the_printed_tables(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)


def test_the_interval_is_t_times_the_standard_error():
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half_width == pytest.approx(4.3027 / math.sqrt(3))


def test_one_clip_has_no_interval():
    assert mean_interval([3.5]) == Mean(3.5, None, 1)


def test_an_infinite_value_makes_the_mean_infinite_and_the_interval_unknown():
    assert mean_interval([math.inf, 20.0]) == Mean(math.inf, None, 2)


def test_a_clip_without_a_value_leaves_no_mean():
    assert mean_interval([1.0, None]) is None and mean_interval([]) is None


def test_spread_is_median_lowest_and_highest():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


def test_the_bootstrap_interval_of_many_values_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = bootstrap([[value] for value in values])
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean()) and found.count == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_values_of_one_group_are_drawn_together():
    # equal seeds of a prompt add nothing to what the prompt says
    once = bootstrap([[value] for value in (1.0, 2.0, 4.0, 7.0)])
    thrice = bootstrap([[value] * 3 for value in (1.0, 2.0, 4.0, 7.0)])
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (once.count, thrice.count) == (4, 12)


def test_the_same_groups_are_drawn_every_time_so_that_differences_are_paired():
    a = [[1.0], [5.0], [2.0], [9.0]]
    b = [[x + 1.0 for x in group] for group in a]
    assert bootstrap(b).low == pytest.approx(bootstrap(a).low + 1)


def test_one_group_has_no_interval():
    assert bootstrap([[2.0, 4.0]]) == Interval(3.0, None, None, 2)
