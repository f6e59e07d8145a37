"""What a sweep says: each arm's accuracy, what it cost, and whether it beats the baseline.

The unit of every statistic is the run (its seed): problems of one run are not independent samples of an algorithm and
are never pooled. Differences are paired by seed: runs of one seed see the same problems with the same sampling seeds.

Arms are compared twice: after the last iteration, and when all have used as many tokens as the run that used fewest. An
algorithm that samples three times as many responses in an iteration may win the first and lose the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from sgpo_core.analysis.statistics import (
    Interval,
    Limits,
    Paired,
    area_under,
    first_reaching,
    holm,
    mean_interval,
    paired_difference,
)

Curve = dict[int, float]  # value by iteration

LEVEL = 0.05  # at which a difference is called significant, corrected for the number of arms
_SHARES: Limits = (0.0, 1.0)  # an accuracy
_DIFFERENCES: Limits = (-1.0, 1.0)  # of two


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as the tracking server has it. `curves`: metric -> value by iteration; `settings`: flat, dotted."""

    run_id: str
    arm: str
    seed: int
    finished: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    status: str = ""

    def cumulative(self, *metrics: str) -> Curve:
        """Sum of metrics over the iterations so far; iteration 0 has cost what its initial policy has (an offline run's
        responses), else nothing."""
        total = sum(self.curves.get(metric, {}).get(0, 0.0) for metric in metrics if metric.endswith("/tokens"))
        sums = {0: total}
        steps = sorted({i for metric in metrics for i in self.curves.get(metric, {}) if i > 0})
        for i in steps:
            total += sum(self.curves.get(metric, {}).get(i, 0.0) for metric in metrics)
            sums[i] = total
        return sums

    def against(self, metric: str, axis: str) -> dict[float, float]:
        """The metric's curve by "iteration", "tokens" (sampled by policy and judge so far) or "seconds" so far."""
        values = self.curves.get(metric, {})
        if axis == "iteration":
            return {float(i): v for i, v in values.items()}
        x = self.cumulative(*AXES[axis])
        return {x[i]: v for i, v in sorted(values.items()) if i in x}


AXES: dict[str, tuple[str, ...]] = {
    "iteration": (),
    "tokens": ("rollout/tokens", "judge/tokens"),
    "seconds": ("time/iteration_s",),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """An arm's accuracy at one point of its runs, and against the baseline's at the same; None where there is none."""

    accuracy: Interval | None
    versus: Paired | None  # its difference to the baseline's, paired by seed; None for the baseline itself, too
    p_adjusted: float | None  # Holm, over all arms that are compared at this point

    @property
    def finding(self) -> int:
        """1: significantly better than the baseline at 5 %, corrected; -1: significantly worse; 0: neither."""
        if self.versus is None or self.p_adjusted is None or self.p_adjusted > LEVEL:
            return 0
        return 1 if self.versus.mean > 0 else -1


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One row of the report; None where no run of the arm has what it takes."""

    arm: str
    runs: int
    final: Standing  # after the last iteration
    equal_tokens: Standing  # when the thriftiest run has used its last token
    area: float | None  # mean accuracy over the whole run
    reached: int  # runs that reach the target accuracy
    iterations_to_target: float | None  # median over runs; None unless more than half reach it
    tokens_to_target: float | None
    tokens: float | None  # of a whole run, median
    seconds: float | None
    judge_calls: float | None
    all_negative: float | None  # share over the whole run, mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole of it: rows in the order of the arms, and what is missing or unfinished, in words.

    iterations: the fewest and the most that a finished run has. token_budget: the fewest tokens that one used (policy
    and judge); None where none were recorded.
    """

    metric: str
    target: float
    baseline: str
    iterations: tuple[int, int] | None
    token_budget: float | None
    arms: list[ArmSummary]
    missing: list[str]


def compare(
    records: Sequence[RunRecord], arms: Sequence[str], seeds: Sequence[int], baseline: str, metric: str, target: float
) -> Comparison:
    """Summaries of the finished runs of each arm; the metric is a share, 0..1. An empty or half-finished sweep is no
    error: it says what is missing."""
    finished = {(r.arm, r.seed): r for r in records if r.finished}
    by_arm = {arm: {s: finished[arm, s] for s in seeds if (arm, s) in finished} for arm in arms}
    totals = [max(r.cumulative(*AXES["tokens"]).values()) for r in finished.values()]
    budget = min(totals, default=0.0) or None
    last = [max(r.curves[metric]) for r in finished.values() if r.curves.get(metric)]
    final = _standings(by_arm, baseline, lambda run: _final(run, metric))
    equal = _standings(by_arm, baseline, lambda run: _at_tokens(run, metric, budget))
    states = {(r.arm, r.seed): r.status or "in progress" for r in records}
    missing = [
        f"{arm}, seed {seed}: {states.get((arm, seed), 'never started')}"
        for arm in arms
        for seed in seeds
        if (arm, seed) not in finished
    ]
    return Comparison(
        metric,
        target,
        baseline,
        (min(last), max(last)) if last else None,
        budget,
        [_summary(arm, by_arm[arm], metric, target, final[arm], equal[arm]) for arm in arms],
        missing,
    )


def _standings(
    by_arm: Mapping[str, Mapping[int, RunRecord]], baseline: str, value: Callable[[RunRecord], float | None]
) -> dict[str, Standing]:
    """By arm, of one value a run."""
    values = {arm: {s: v for s, run in runs.items() if (v := value(run)) is not None} for arm, runs in by_arm.items()}
    theirs = values[baseline]
    paired = {
        arm: paired_difference(ours, theirs, _DIFFERENCES)
        for arm, ours in values.items()
        if arm != baseline and ours.keys() & theirs.keys()
    }
    adjusted = holm({arm: result.p for arm, result in paired.items()})
    return {
        arm: Standing(mean_interval(list(ours.values()), _SHARES) if ours else None, paired.get(arm), adjusted.get(arm))
        for arm, ours in values.items()
    }


def _final(run: RunRecord, metric: str) -> float | None:
    curve = run.curves.get(metric)
    return curve[max(curve)] if curve else None


def _at_tokens(run: RunRecord, metric: str, budget: float | None) -> float | None:
    """The metric after that many tokens, between evaluations a line."""
    curve = run.against(metric, "tokens")
    return float(np.interp(budget, list(curve), list(curve.values()))) if curve and budget is not None else None


def _summary(
    arm: str, runs: Mapping[int, RunRecord], metric: str, target: float, final: Standing, equal_tokens: Standing
) -> ArmSummary:
    curves = [r.against(metric, "iteration") for r in runs.values() if r.curves.get(metric)]
    by_tokens = [r.against(metric, "tokens") for r in runs.values() if r.curves.get(metric)]
    to_target = [first_reaching(c, target) for c in curves]
    return ArmSummary(
        arm,
        runs=len(runs),
        final=final,
        equal_tokens=equal_tokens,
        area=_mean([area_under(c) for c in curves]),
        reached=sum(x is not None for x in to_target),
        iterations_to_target=_median_reached(to_target),
        tokens_to_target=_median_reached([first_reaching(c, target) for c in by_tokens]),
        tokens=_median([max(r.cumulative(*AXES["tokens"]).values()) for r in runs.values()]),
        seconds=_median([max(r.cumulative(*AXES["seconds"]).values()) for r in runs.values()]),
        judge_calls=_median([max(r.cumulative("judge/calls").values()) for r in runs.values()]),
        all_negative=_mean([v for r in runs.values() for v in r.curves.get("group/all_negative_frac", {}).values()]),
    )


def differing_settings(records: Sequence[RunRecord]) -> dict[str, dict[str, str]]:
    """Setting -> arm -> value, of the settings in which arms differ; what follows from the seed is left out."""
    own = ("seed", "tags.arm")
    by_arm = {r.arm: r.settings for r in records}
    names = sorted({name for settings in by_arm.values() for name in settings if name not in own})
    table = {name: {arm: str(settings.get(name, "-")) for arm, settings in by_arm.items()} for name in names}
    return {name: values for name, values in table.items() if len(set(values.values())) > 1}


def _median_reached(values: Sequence[float | None]) -> float | None:
    """The median where those that never arrive count as infinite; None where that is infinite."""
    ordered = sorted(float("inf") if v is None else v for v in values)
    middle = median(ordered) if ordered else float("inf")
    return None if middle == float("inf") else middle


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
