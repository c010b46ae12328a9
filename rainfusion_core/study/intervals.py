"""What several clips or runs say together: a mean with its 95 % interval, a median with its spread."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, stdev

# 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom, where the expansion is too coarse
_FEW = dict(enumerate([12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622], 1))


@dataclass(frozen=True)
class Mean:
    """A mean over clips. `half_width` of its 95 % interval; None for one clip or for infinite values."""

    mean: float
    half_width: float | None
    count: int


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    min: float
    max: float
    count: int


def mean_interval(values: Iterable[float | None]) -> Mean | None:
    """Mean and Student-t interval over clips; None if a clip has no value."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    if not known or len(known) < len(listed):
        return None
    if not all(map(math.isfinite, known)):
        return Mean(math.inf, None, len(known))
    if len(known) == 1:
        return Mean(known[0], None, 1)
    half_width = student_t(len(known) - 1) * stdev(known) / math.sqrt(len(known))
    return Mean(fmean(known), half_width, len(known))


def spread(values: Iterable[float]) -> Spread:
    listed = list(values)
    return Spread(median(listed), min(listed), max(listed), len(listed))


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to three decimals.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if freedom in _FEW:
        return _FEW[freedom]
    z = NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval; one group alone has none. `count` values went in."""

    mean: float
    low: float | None
    high: float | None
    count: int


def bootstrap(groups: Sequence[Sequence[float]], *, resamples: int = 4000) -> Interval:
    """Mean over all values, with the percentile interval of resampled groups.

    Values of one group belong together (the seeds of one prompt), so whole groups are drawn. The
    draws are the same in every call: two things measured on the same groups stay paired.

    Args:
        groups: at least one, none of them empty.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    import numpy as np

    count = sum(map(len, groups))
    sums, sizes = (np.array([f(group) for group in groups], float) for f in (sum, len))
    mean = float(sums.sum() / sizes.sum())
    if len(groups) == 1:
        return Interval(mean, None, None, count)
    drawn = np.random.default_rng(0).integers(len(groups), size=(resamples, len(groups)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high), count)
