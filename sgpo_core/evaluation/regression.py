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
from statistics import fmean

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


def smallest_drop(now: Result, before: Result, difference: Paired, level: float) -> float | None:
    """The smallest true drop of avg@k that this comparison finds with a power of 80 %, at this level after Holm.

    `smallest_effect` of the spread of the differences over problems. Two nights of one policy with the same seeds are
    equal, and their spread of 0 would promise that any drop is found; so the spread is at least that which sampling
    alone gives: a share x of k responses has a variance of x (1 - x) / (k - 1), unbiased, and a difference of two the
    sum of both, mean over problems. A drop that spares most problems has a larger spread than a night without one: the
    number is a lower limit. None: the problems are too few for any p at this level, or no spread is known (k = 1 and
    equal results), or the drop would be larger than what there was.
    """
    k = now.scores.k
    shares = [*now.per_problem.values(), *before.per_problem.values()]
    sampling = 2 * fmean(x * (1 - x) for x in shares) / (k - 1) if k > 1 else 0.0
    if difference.n < 2 or difference.smallest_p > level:
        return None
    drop = smallest_effect(max(difference.std, math.sqrt(sampling)), difference.n, level)
    return drop if 0 < drop <= before.scores.avg_at_k else None


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
        smallest_drop=smallest_drop(now, before, difference, level),
        lower=tuple(sorted(drops, key=lambda i: -drops[i])),
        lost=tuple(i for i, a, b in zip(ids, ours, theirs, strict=True) if a < _SOLVED <= b),
        gained=tuple(i for i, a, b in zip(ids, ours, theirs, strict=True) if b < _SOLVED <= a),
    )


def regressions(comparisons: Sequence[Comparison], level: float) -> list[Comparison]:
    """Those that are worse, at a level that holds for all of them together."""
    adjusted = holm({str(i): comparison.difference.p for i, comparison in enumerate(comparisons)})
    return [c for i, c in enumerate(comparisons) if c.difference.mean < 0 and adjusted[str(i)] <= level]
