"""Has a policy become worse on a benchmark? Two results, paired by problem.

Unlike runs of a training method (statistics.py: the unit is the seed), two fixed policies are compared on a population
of problems: here the problem is the unit, and its value the share of correct responses. The test is that module's:
signs of the differences are flipped, two-sided; Holm over all comparisons of a night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgpo_core.analysis.statistics import Paired, holm, paired_difference
from sgpo_core.evaluation.protocol import Result, require_same

_SOLVED = 0.5  # share of correct responses from which on a problem counts as solved


@dataclass(frozen=True, slots=True)
class Comparison:
    """A policy's result against an earlier one or another policy's: `difference` is now minus before, in avg@k, with
    its 95 % interval over problems. lower: ids of problems with a lower share of correct responses, the largest drop
    first; lost, gained: those that half of the responses or more solved before and not now, and the other way."""

    model: str
    benchmark: str
    against: str
    before: float
    now: float
    difference: Paired
    lower: tuple[str, ...]
    lost: tuple[str, ...]
    gained: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.model} {self.benchmark} against {self.against}"


def compare(model: str, against: str, now: Result, before: Result) -> Comparison:
    """ValueError where the protocols differ: that says what differs."""
    require_same(now.protocol, before.protocol)
    ids = list(now.per_problem)  # the same in both: the protocol holds a hash of the problems
    ours, theirs = ([result.per_problem[i] for i in ids] for result in (now, before))
    drops = {i: b - a for i, a, b in zip(ids, ours, theirs, strict=True) if b > a}
    return Comparison(
        model=model,
        benchmark=now.protocol.benchmark,
        against=against,
        before=before.scores.avg_at_k,
        now=now.scores.avg_at_k,
        difference=paired_difference(dict(enumerate(ours)), dict(enumerate(theirs))),
        lower=tuple(sorted(drops, key=lambda i: -drops[i])),
        lost=tuple(i for i, a, b in zip(ids, ours, theirs, strict=True) if a < _SOLVED <= b),
        gained=tuple(i for i, a, b in zip(ids, ours, theirs, strict=True) if b < _SOLVED <= a),
    )


def regressions(comparisons: Sequence[Comparison], level: float) -> list[Comparison]:
    """Those that are worse, at a level that holds for all of them together."""
    adjusted = holm({str(i): comparison.difference.p for i, comparison in enumerate(comparisons)})
    return [c for i, c in enumerate(comparisons) if c.difference.mean < 0 and adjusted[str(i)] <= level]
