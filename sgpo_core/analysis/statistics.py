"""Is it better, by how much, how sure are we: intervals, paired tests and summaries of curves over a few seeds.

The unit is the seed, that is the run: one number each. Problems are never pooled: those of one run share its weights,
so counting each as a sample would claim a certainty about training that few runs can't give.

    interval     bootstrap of the mean, percentile method         Efron & Tibshirani 1993, ch. 13
    paired test  sign flips of the differences, two-sided         Fisher's randomisation; Efron & Tibshirani, ch. 15
                 Monte Carlo p = (b + 1) / (m + 1)                Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9
    many tests   Holm's step-down                                 Holm 1979, Scand. J. Statist. 6

Few seeds say little, whatever the method. No p below 2 / 2^n exists: .5 for 2 seeds, .25 for 3, .0625 for 5; six are
needed for one below .05. The 95 % interval of 2 or 3 seeds is just their range, which holds the center of a symmetric
distribution in 1 - 2 / 2^n of all cases: 50 % and 75 %, not 95 %; later it closes in on its nominal coverage slowly.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ENUMERATED_BOOTSTRAP = 6  # n up to which all n^n resamples are gone through: 46,656
ENUMERATED_FLIPS = 16  # n up to which all 2^n signs are: 65,536
TIE = 1e-10  # sums of differences closer than this share of the values' size are equal but for rounding

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and the interval round it, in the unit of the values; low = high = NaN for a single seed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Ours minus the baseline, seed by seed, in the unit of the values (low = high = NaN for a single seed).

    p: two-sided. smallest_p: the smallest that could have come out, to be shown beside it. n: the seeds that both have.
    dropped: the seeds that only one of them has.
    """

    mean: float
    low: float
    high: float
    p: float
    smallest_p: float
    n: int
    dropped: int


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of one value a seed, and its percentile bootstrap interval; the order of the values doesn't matter.

    With B means of n values drawn with replacement, a = (1 - confidence) / 2 and k = max(1, ceil(a B)), low is the
    k-th smallest and high the k-th largest of them. Up to n = 6 they are all n^n (B and `seed` aren't used), else
    `resamples` drawn ones. One value says nothing of the spread between seeds: its low and high are NaN, where a width
    of 0 would look like certainty. ValueError: no values, one that isn't finite, a confidence outside (0, 1), no
    resamples.
    """
    _check_settings(confidence, resamples)
    _check_finite("value", values)
    if len(values) == 0:  # an array has no truth value
        raise ValueError("an interval needs at least one value (one for each seed); there is none")
    # Sorted: the runs of a sweep come in any order, and the report made again must show the same digits.
    sample = np.sort(np.asarray(values, dtype=np.float64))
    least, greatest = float(sample[0]), float(sample[-1])
    mean = _clip(statistics.fmean(values), least, greatest)
    if len(sample) == 1:
        return Interval(mean, math.nan, math.nan)
    means = np.sort(_resampled_means(sample, resamples, seed))
    tail = (1 - confidence) / 2
    k = max(1, math.ceil(tail * len(means) - 1e-9))  # .025 is .0250...02 here, which must not make 251 of 250
    low, high = float(means[k - 1]), float(means[-k])
    # Clipped, as the mean is: equal values must give a width of exactly 0.
    return Interval(mean, _clip(low, least, greatest), _clip(high, least, greatest))


def paired_difference(
    ours: Mapping[int, float],
    baseline: Mapping[int, float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Paired:
    """How much better ours is: d = ours - baseline at each seed that both have, its mean, interval and p.

    Were both the same, the sign of each d would be a coin toss: p is the share of the 2^n sign patterns s with
    |sum s d| >= |sum d|. Up to n = 16 all are counted, so smallest_p = 2 / 2^n; beyond, `resamples` are drawn, b of
    them as extreme, p = (b + 1) / (resamples + 1), and smallest_p = 1 / (resamples + 1). Sums that differ by rounding
    alone count as equal, so values that are the same but for the order they were added in give p = 1. The interval is
    `bootstrap_interval` of the d. ValueError: no seed in common, and as there.
    """
    _check_settings(confidence, resamples)
    _check_finite("value of ours", ours.values())
    _check_finite("value of the baseline", baseline.values())
    shared = sorted(ours.keys() & baseline.keys())
    if not shared:
        raise ValueError(f"no seed in common: ours has {sorted(ours)}, the baseline {sorted(baseline)}")
    differences = [ours[s] - baseline[s] for s in shared]
    interval = bootstrap_interval(differences, confidence, resamples, seed)
    # Of the values' size and not the differences': subtracting near-equal values leaves the rounding of the values.
    tolerance = TIE * math.fsum(abs(ours[s]) + abs(baseline[s]) for s in shared)
    p, smallest = _sign_flip_p(np.asarray(differences, dtype=np.float64), tolerance, resamples, seed)
    dropped = len(ours.keys() ^ baseline.keys())
    return Paired(interval.mean, interval.low, interval.high, p, smallest, len(shared), dropped)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values of m comparisons, adjusted to be compared with the level for them all; by name, in the order given.

    With p_1 <= ... <= p_m: adjusted p_i = max over j <= i of min(1, (m - j + 1) p_j). It bounds the chance of one or
    more false findings, however the comparisons depend on each other (here they share the baseline). The smallest
    attainable grows likewise: 3 comparisons of 5 seeds give none below 3 * .0625. ValueError: a p outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:  # NaN, too
            raise ValueError(f"p-values lie in [0, 1]; that of {name!r} is {p}")
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def area_under(curve: Mapping[float, float]) -> float:
    """Mean height of the curve over its range of x, by trapezoids, in the unit of its values; x in any order.

    sum (x_(i+1) - x_i) (y_i + y_(i+1)) / 2, divided by (x_last - x_first): divided, so that runs against tokens or
    seconds, which end at different x, are on one scale. It is still over each run's own range: a run that stopped
    early lacks its late, high part. A single point gives its value. ValueError: no point, or one that isn't finite.
    """
    points = _points(curve)
    if not points:
        raise ValueError("an area needs at least one point; the curve has none")
    if len(points) == 1:
        return points[0][1]
    area = math.fsum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(points))
    return area / (points[-1][0] - points[0][0])


def first_reaching(curve: Mapping[float, float], target: float) -> float | None:
    """The smallest x (iterations, tokens, seconds: the curve's) with a value of at least `target`; None: never.

    Only x where something was measured: between two evaluations nothing is known, so nothing is interpolated. One
    lucky evaluation counts. None must not be left out of a mean over seeds: those left would be the fast ones.
    ValueError: a point or target that isn't finite.
    """
    _check_finite("target", [target])
    return next((x for x, y in _points(curve) if y >= target), None)


def _resampled_means(sample: Array, resamples: int, seed: int) -> Array:
    n = len(sample)
    if n > ENUMERATED_BOOTSTRAP:
        drawn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
        return np.asarray(sample[drawn].mean(axis=1), dtype=np.float64)
    sums = np.zeros(1)
    for _ in range(n):
        sums = np.add.outer(sums, sample).ravel()
    return sums / n


def _sign_flip_p(differences: Array, tolerance: float, resamples: int, seed: int) -> tuple[float, float]:
    """p and the smallest attainable p."""
    n = len(differences)
    bar = abs(math.fsum(differences)) - tolerance
    if n <= ENUMERATED_FLIPS:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate([sums + difference, sums - difference])
        return float(np.mean(np.abs(sums) >= bar)), 2 / 2**n
    signs = 2.0 * np.random.default_rng(seed).integers(0, 2, size=(resamples, n)) - 1
    extreme = int(np.count_nonzero(np.abs(signs @ differences) >= bar))
    # The patterns that came out are themselves one draw: without the + 1 a p of 0 could come out, and would be wrong.
    return (extreme + 1) / (resamples + 1), 1 / (resamples + 1)


def _points(curve: Mapping[float, float]) -> list[tuple[float, float]]:
    _check_finite("x", curve.keys())
    _check_finite("value", curve.values())
    return sorted((float(x), float(y)) for x, y in curve.items())


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _check_settings(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, both excluded; it is {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; it is {resamples}")


def _check_finite(what: str, values: Iterable[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"each {what} must be a finite number; one is {value} (leave failed runs out)")
