"""Has a policy become worse on a benchmark? Two results, paired by problem.

Unlike runs of a training method (statistics.py: the unit is the seed), two fixed policies are compared on a population
of problems: here the problem is the unit, and its value the share of correct responses. The test is that module's:
signs of the differences are flipped, two-sided; Holm over all comparisons of a night. A night with many comparisons
draws more sign patterns, and each comparison says how small a drop it could have found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from sgpo_core.analysis.statistics import RESAMPLES, Paired, holm, paired_difference, smallest_effect
from sgpo_core.evaluation.protocol import Result, require_same

_SOLVED = 0.5  # share of correct responses from which on a problem counts as solved
_BELOW_HOLM = 20  # the smallest p that draws can give lies this many times below what Holm asks of the first comparison


@dataclass(frozen=True, slots=True)
class Pair:
    """Two results of one protocol that are to be compared: a model's, and an earlier one or another policy's.

    ValueError: the protocols differ; it says in what.
    """

    model: str
    against: str
    now: Result
    before: Result

    def __post_init__(self) -> None:
        require_same(self.now.protocol, self.before.protocol)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A policy's result against an earlier one or another policy's: `difference` is now minus before, in avg@k, with
    its interval over problems. smallest_drop: see there; None: none could have been found. lower: ids of problems with
    a lower share of correct responses, the largest drop first; lost, gained: those that half of the responses or more
    solved before and not now, and the other way."""

    model: str
    benchmark: str
    against: str
    before: float
    now: float
    difference: Paired
    smallest_drop: float | None
    lower: tuple[str, ...]
    lost: tuple[str, ...]
    gained: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.model} {self.benchmark} against {self.against}"


def compare_all(pairs: Sequence[Pair], level: float) -> list[Comparison]:
    """All comparisons of a night, in order, to be tested together at this level (see `regressions`)."""
    return [_compare(pair, level / len(pairs)) for pair in pairs]


def resamples_for(level: float) -> int:
    """Sign patterns to draw where a p has to pass this level after Holm (alpha / m for the smallest p of m).

    With R of them no p is below 1 / (R + 1). R = 20 / level puts that 20 times below the level; 10,000 at least.
    """
    return max(RESAMPLES, math.ceil(_BELOW_HOLM / level - 1e-9))  # 20 / .002 is 10000.000000000002 or so


def smallest_drop(before: Sequence[float], k: int, difference: Paired, level: float) -> float | None:
    """The smallest true drop of avg@k that this comparison finds with a power of 80 %, at this level after Holm.

    before: shares of correct responses among k, by problem. The drop is `smallest_effect` of the spread that it would
    bring with it: the observed one (`difference.std`), or, if that is larger, the spread if every problem's chance fell
    by the same factor. Then problems differ in how far they fall, and k responses are drawn twice. With the mean m, the
    variance v over problems and q = x (1 - drop / m):

        spread^2 = mean of (x (1 - x) + q (1 - q)) / (k - 1)  +  v (drop / m)^2

    Without this, two equal nights of one policy (same seeds) would promise that any drop is found. In simulations the
    drop is found in 75 to 99 % of cases (`python -m bench.coverage`). None: the problems are too few for any p at this
    level, even a drop to 0 would be missed, or no spread is known (k = 1 and equal results).
    """
    shares = np.asarray(before, dtype=np.float64)
    mean = float(shares.mean())
    if difference.n < 2 or difference.smallest_p > level or mean == 0 or (k == 1 and difference.std == 0):
        return None
    between = float(shares.var(ddof=1))
    per_std = smallest_effect(1.0, difference.n, level)

    def missing(drop: float) -> float:
        """How much more than the drop it would take; its sign changes at the smallest drop that is found."""
        fallen = shares * (1 - drop / mean)
        drawn = float((shares * (1 - shares) + fallen * (1 - fallen)).mean()) / max(1, k - 1)
        return per_std * max(difference.std, math.sqrt(drawn + between * (drop / mean) ** 2)) - drop

    if missing(mean) > 0:
        return None
    return float(brentq(missing, 1e-9 * mean, mean))  # not from 0, where shares of 0 and 1 alone have no spread


def _compare(pair: Pair, level: float) -> Comparison:
    """`level`: what Holm asks of the smallest p."""
    now, before = pair.now, pair.before
    ids = list(now.per_problem)  # the same in both: the protocol holds a hash of the problems
    ours, theirs = ([result.per_problem[i] for i in ids] for result in (now, before))
    drops = {i: b - a for i, a, b in zip(ids, ours, theirs, strict=True) if b > a}
    difference = paired_difference(
        dict(enumerate(ours)), dict(enumerate(theirs)), limits=(-1.0, 1.0), resamples=resamples_for(level)
    )
    return Comparison(
        model=pair.model,
        benchmark=now.protocol.benchmark,
        against=pair.against,
        before=before.scores.avg_at_k,
        now=now.scores.avg_at_k,
        difference=difference,
        smallest_drop=smallest_drop(theirs, before.scores.k, difference, level),
        lower=tuple(sorted(drops, key=lambda i: -drops[i])),
        lost=tuple(i for i, a, b in zip(ids, ours, theirs, strict=True) if a < _SOLVED <= b),
        gained=tuple(i for i, a, b in zip(ids, ours, theirs, strict=True) if b < _SOLVED <= a),
    )


def regressions(comparisons: Sequence[Comparison], level: float) -> list[Comparison]:
    """Those that are worse, at a level that holds for all of them together."""
    adjusted = holm({str(i): comparison.difference.p for i, comparison in enumerate(comparisons)})
    return [c for i, c in enumerate(comparisons) if c.difference.mean < 0 and adjusted[str(i)] <= level]
