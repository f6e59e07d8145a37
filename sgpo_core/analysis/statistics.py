"""Is it better, by how much, how sure are we: intervals, paired tests and summaries of curves over a few seeds.

The unit is the seed, that is the run: one number each. Problems are never pooled: those of one run share its weights,
so counting each as a sample would claim a certainty about training that few runs can't give. (Two fixed policies on one
benchmark are another case, see sgpo_core/evaluation/regression.py: there the unit is the problem.)

    interval     Student's t, from 3 values on                    Student 1908, Biometrika 6
                 BCa bootstrap, from 30 values on                 Efron 1987, J. Am. Stat. Assoc. 82
    paired test  sign flips of the differences, two-sided         Fisher 1935; Efron & Tibshirani 1993, ch. 15
                 Monte Carlo p = (b + 1) / (m + 1)                Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9
    many tests   Holm's step-down                                 Holm 1979, Scand. J. Statist. 6
    smallest difference that a test can see                       Bloom 1995, Evaluation Review 19

Few seeds say little, whatever the method. No p below 2 / 2^n exists: .5 for 2 seeds, .25 for 3, .0625 for 5; six are
needed for one below .05. The t interval covers the mean in 95 % of all cases if runs are normally distributed, and in
fewer if they are skewed: `python -m bench.coverage` prints how many. Two values get their range, which claims nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 10_000  # of a bootstrap, and of a permutation test unless more is asked for
_T_FROM = 3  # values: with 2 the t interval is 13 times as wide as their range
_BCA_FROM = 30  # values: BCa follows their skew, as t does not, but needs a sample that shows it
_MAX_DRAWS = 10_000_000  # of values by a bootstrap
_BATCH = 1_000_000  # of values that a permutation test holds at a time
_TIE = 1e-10  # sums of differences closer than this share of the values' size are equal but for rounding

Array = NDArray[np.float64]
Limits = tuple[float, float]
Kind = Literal["95 % t", "95 % BCa", "range", "none"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval round it, in the unit of the values.

    kind: what low and high are. "95 % t", "95 % BCa": an interval with that nominal coverage of the mean. "range": the
    smallest and the largest value, which claims no coverage. "none": low = high = NaN, since there is one value.
    """

    mean: float
    low: float
    high: float
    kind: Kind

    def text(self, sign: str = "") -> str:
        """With its name: `0.923 [95 % t: 0.874, 0.972]`, `0.923 [range: 0.898, 0.938]`, `0.923`. sign: "+" shows it."""
        if self.kind == "none":
            return f"{self.mean:{sign}.3f}"
        return f"{self.mean:{sign}.3f} [{self.kind}: {self.low:{sign}.3f}, {self.high:{sign}.3f}]"


@dataclass(frozen=True, slots=True)
class Paired(Interval):
    """Ours minus the baseline, pair by pair, in the unit of the values: the interval of the difference, and its test.

    p: two-sided. smallest_p: the smallest that could have come out, to be shown beside it. std: sample standard
    deviation of the differences (NaN for one). n: the pairs. dropped: seeds that only one of the two has.
    """

    p: float
    smallest_p: float
    std: float
    n: int
    dropped: int


def mean_interval(values: Sequence[float], limits: Limits = (-math.inf, math.inf), seed: int = 0) -> Interval:
    """The mean of independent values and its 95 % interval; the order of the values doesn't matter.

    3 to 29 values: mean -+ t(.975, n - 1) s / sqrt(n) with the sample standard deviation s. From 30 on: the BCa
    bootstrap, `seed` for its resamples. 2 values, or values that are all equal, which say nothing of the spread: their
    range. limits: the smallest and largest mean that there can be, (0, 1) for shares; the interval is cut there, which
    takes nothing from its coverage. ValueError: no values, or one that isn't finite.
    """
    _check_finite("value", values)
    if len(values) == 0:  # an array has no truth value
        raise ValueError("an interval needs at least one value (one for each seed); there is none")
    # Sorted: the runs of a sweep come in any order, and the report made again must show the same digits.
    sample = np.sort(np.asarray(values, dtype=np.float64))
    n, least, greatest = len(sample), float(sample[0]), float(sample[-1])
    mean = min(max(statistics.fmean(values), least), greatest)  # equal values have exactly their own mean
    if n == 1:
        return Interval(mean, math.nan, math.nan, "none")
    if n < _T_FROM or greatest - least <= _TIE * max(abs(least), abs(greatest)):
        return Interval(mean, least, greatest, "range")
    kind: Kind = "95 % t"
    if n < _BCA_FROM:
        low, high = stats.t.interval(CONFIDENCE, n - 1, loc=mean, scale=stats.sem(sample))
    else:
        resamples = max(1_000, min(RESAMPLES, _MAX_DRAWS // n))
        batch = max(1, _BATCH // n)
        found = stats.bootstrap(
            (sample,), np.mean, n_resamples=resamples, batch=batch, confidence_level=CONFIDENCE, method="BCa", rng=seed
        )
        (low, high), kind = found.confidence_interval, "95 % BCa"
    return Interval(mean, max(float(low), limits[0]), min(float(high), limits[1]), kind)


def paired_difference(
    ours: Mapping[int, float],
    baseline: Mapping[int, float],
    limits: Limits = (-math.inf, math.inf),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """How much better ours is: d = ours - baseline at each seed that both have, its mean, interval and p.

    Were both the same, the sign of each d would be a coin toss: p is the share of the 2^n sign patterns s with
    |sum s d| >= |sum d|. Where 2^n <= `resamples` (n = 13 for the default) all are counted, so smallest_p = 2 / 2^n;
    beyond, `resamples` are drawn, b of them as extreme, p = (b + 1) / (resamples + 1), and smallest_p =
    1 / (resamples + 1). (A d of 0 is left out of the patterns: its sign changes no sum.) Sums that differ by rounding
    alone count as equal, so values that are the same but for the order they were added in give p = 1. The interval is
    `mean_interval` of the d within `limits`, (-1, 1) for shares. ValueError: no seed in common, a value that isn't
    finite, no resamples.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; it is {resamples}")
    _check_finite("value of ours", ours.values())
    _check_finite("value of the baseline", baseline.values())
    shared = sorted(ours.keys() & baseline.keys())
    if not shared:
        raise ValueError(f"no seed in common: ours has {sorted(ours)}, the baseline {sorted(baseline)}")
    # Of the values' size and not the differences': subtracting near-equal values leaves the rounding of the values.
    sizes = [abs(ours[s]) + abs(baseline[s]) for s in shared]
    exact = [ours[s] - baseline[s] for s in shared]
    differences = [0.0 if abs(d) <= _TIE * size else d for d, size in zip(exact, sizes, strict=True)]
    interval = mean_interval(differences, limits, seed)
    n = len(differences)
    return Paired(
        interval.mean,
        interval.low,
        interval.high,
        interval.kind,
        p=_sign_flip_p(differences, _TIE * math.fsum(sizes), resamples, seed),
        smallest_p=2 / 2**n if 2**n <= resamples else 1 / (resamples + 1),
        std=statistics.stdev(differences) if n > 1 else math.nan,
        n=n,
        dropped=len(ours.keys() ^ baseline.keys()),
    )


def _sign_flip_p(differences: Sequence[float], tolerance: float, resamples: int, seed: int) -> float:
    moved = np.array([d for d in differences if d])  # the sign of a 0 changes no sum
    if len(moved) < 2:  # one alone is as large with either sign
        return 1.0
    bar = abs(math.fsum(moved)) - tolerance

    def extreme(signed: Array, axis: int) -> Any:
        return (np.abs(signed.sum(axis=axis)) >= bar).astype(np.float64)

    found = stats.permutation_test(
        (moved,),
        extreme,  # 1 for the observed signs: p is the share of patterns with 1
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _BATCH // len(moved)),
        alternative="greater",
        rng=seed,
    )
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values of m comparisons, adjusted to be compared with the level for them all; by name, in the order given.

    With p_1 <= ... <= p_m: adjusted p_i = max over j <= i of min(1, (m - j + 1) p_j). It bounds the chance of one or
    more false findings, however the comparisons depend on each other (here they share the baseline). The smallest
    attainable grows likewise: 3 comparisons of 5 seeds give none below 3 * .0625. ValueError: a p outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:  # NaN, too
            raise ValueError(f"p-values lie in [0, 1]; that of {name!r} is {p}")
    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return {name: float(p) for name, p in zip(p_values, adjusted, strict=True)}


def smallest_effect(std: float, n: int, level: float) -> float:
    """The smallest true mean difference of n pairs that a two-sided test at this level finds with a power of 80 %.

    (t(1 - level / 2, n - 1) + t(.8, n - 1)) std / sqrt(n), in the unit of `std`, the standard deviation of the
    differences. This is the t test's; the sign-flip test has the same power from about 30 pairs on, and less with
    fewer. ValueError: fewer than 2 pairs, a negative std, a level outside (0, 1).
    """
    if n < 2 or not std >= 0 or not 0 < level < 1:
        raise ValueError(f"needs 2 pairs, a std from 0 on and a level inside (0, 1); they are {n}, {std}, {level}")
    return float((stats.t.ppf(1 - level / 2, n - 1) + stats.t.ppf(POWER, n - 1)) * std / math.sqrt(n))


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
    x, y = zip(*points, strict=True)
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def first_reaching(curve: Mapping[float, float], target: float) -> float | None:
    """The smallest x (iterations, tokens, seconds: the curve's) with a value of at least `target`; None: never.

    Only x where something was measured: between two evaluations nothing is known, so nothing is interpolated. One
    lucky evaluation counts. None must not be left out of a mean over seeds: those left would be the fast ones.
    ValueError: a point or target that isn't finite.
    """
    _check_finite("target", [target])
    return next((x for x, y in _points(curve) if y >= target), None)


def _points(curve: Mapping[float, float]) -> list[tuple[float, float]]:
    _check_finite("x", curve.keys())
    _check_finite("value", curve.values())
    return sorted((float(x), float(y)) for x, y in curve.items())


def _check_finite(what: str, values: Iterable[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"each {what} must be a finite number; one is {value} (leave failed runs out)")
