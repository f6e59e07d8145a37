"""How often an interval holds the true mean, and how often the nightly test finds a drop: simulated.

    python -m bench.coverage        prints the tables of docs/compare.md and docs/benchmarks.md; a seed decides all

It takes about five minutes. In the tables of intervals the peer is the percentile bootstrap. A cell is `peer → ours`,
the share of intervals with the true mean in it (standard error up to .008 for runs, .011 for problems). Of ours those
that are called 95 % count; two values give only ranges, which count. The last table has a standard error up to .03.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sgpo_core.analysis.statistics import CONFIDENCE, Paired, mean_interval, paired_difference
from sgpo_core.evaluation.regression import resamples_for, smallest_drop

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]  # of this shape, (samples, values)

SEED = 0
RUNS, SAMPLES = (2, 3, 4, 5, 6, 10), 4000
PROBLEMS, PROBLEM_SAMPLES, K = (30, 64, 198), 1000, 16
PEER_RESAMPLES, PEER_BATCH = 2000, 50


def collapsing(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Every fourth run ends at 0, the others near .9."""
    return np.where(rng.random(shape) < 0.25, 0.0, rng.normal(0.9, 0.02, shape))


def shares(a: float, b: float) -> Draw:
    """Shares of K responses that are correct, to problems that a policy solves with a chance from Beta(a, b)."""
    return lambda rng, shape: rng.binomial(K, rng.beta(a, b, shape)) / K


def again(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Two evaluations of one policy with other seeds, Beta(.4, .4)."""
    chance = rng.beta(0.4, 0.4, shape)
    return (rng.binomial(K, chance) - rng.binomial(K, chance)) / K


def lost(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A tenth of the problems are solved no more, the others as before."""
    chance = rng.beta(0.4, 0.4, shape)
    now = chance * (rng.random(shape) >= 0.1)
    return (rng.binomial(K, now) - rng.binomial(K, chance)) / K


# What is drawn -> the draw and its true mean.
SEEDS_TABLE: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "exponential (skewed)": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "Beta(8, 2) (skewed, 0 to 1)": (lambda rng, shape: rng.beta(8, 2, shape), 0.8),
    "one run in four collapses": (collapsing, 0.675),
    "paired difference: Beta(8, 2) - Beta(6, 4)": (
        lambda rng, shape: rng.beta(8, 2, shape) - rng.beta(6, 4, shape),
        0.2,
    ),
    "paired difference: one in four collapses, the other is normal": (
        lambda rng, shape: collapsing(rng, shape) - rng.normal(0.6, 0.05, shape),
        0.075,
    ),
}
PROBLEMS_TABLE: dict[str, tuple[Draw, float]] = {
    "accuracy 0.5, Beta(0.4, 0.4)": (shares(0.4, 0.4), 0.5),
    "accuracy 0.1, Beta(0.15, 1.35)": (shares(0.15, 1.35), 0.1),
    "accuracy 0.03, Beta(0.06, 1.94)": (shares(0.06, 1.94), 0.03),
    "paired difference: the same policy twice": (again, 0.0),
    "paired difference: a tenth of the problems lost": (lost, -0.05),
}

LEVEL, NIGHTS, DROP = 0.01, 300, 0.05
COMPARED = ((30, 1), (30, 4), (64, 4))  # problems, comparisons of a night


def main() -> None:
    print(table("runs", SEEDS_TABLE, RUNS, SAMPLES))
    print()
    print(table("problems", PROBLEMS_TABLE, PROBLEMS, PROBLEM_SAMPLES))
    print()
    print(power_table())


def table(what: str, rows: Mapping[str, tuple[Draw, float]], sizes: Sequence[int], samples: int) -> str:
    """Markdown, a row a distribution and a column a number of values."""
    lines = [f"| {what} | {' | '.join(map(str, sizes))} |", "|---" * (len(sizes) + 1) + "|"]
    for name, (draw, mean) in rows.items():
        cells = []
        for n in sizes:
            drawn = draw(np.random.default_rng([SEED, n]), (samples, n))
            cells.append(f"{peer_coverage(drawn, mean):.2f} → {our_coverage(drawn, mean):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def peer_coverage(drawn: Array, mean: float) -> float:
    """Of the percentile bootstrap, samples in rows."""
    found: Any = stats.bootstrap(
        (drawn,),
        np.mean,
        axis=-1,
        n_resamples=PEER_RESAMPLES,
        batch=PEER_BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=SEED,
    )
    low, high = found.confidence_interval
    return float(np.mean((low <= mean) & (mean <= high)))


def our_coverage(drawn: Array, mean: float) -> float:
    """Of those intervals of ours that are called 95 %, or of all ranges where there are only these."""
    intervals = [mean_interval(list(row)) for row in drawn]
    named = [i for i in intervals if i.kind in ("95 % t", "95 % BCa")] or intervals
    return float(np.mean([i.low <= mean <= i.high for i in named]))


def power_table() -> str:
    """Markdown: the smallest drop that nights without one name (median), in how many nights such a drop is then found,
    and in how many DROP is. All chances, from Beta(.4, .4) with the mean .5, fall by the same factor."""
    head = f"| problems | comparisons | smallest drop | is found in | a drop of {DROP:g} is found in |"
    lines = [head, "|---|---|---|---|---|"]
    for n, comparisons in COMPARED:
        rng, level = np.random.default_rng([SEED, n]), LEVEL / comparisons
        named, seen, seen_fixed = [], 0, 0
        for _ in range(NIGHTS):
            before, test = night(rng, n, 0.0, level)
            drop = smallest_drop(before, K, test, level)
            if drop is not None:
                named.append(drop)
                seen += is_found(night(rng, n, drop, level)[1], level)
            seen_fixed += is_found(night(rng, n, DROP, level)[1], level)
        shown = f"{np.median(named):.3f} | {seen / len(named):.0%} | {seen_fixed / NIGHTS:.0%}"
        lines.append(f"| {n} | {comparisons} | {shown} |")
    return "\n".join(lines)


def night(rng: np.random.Generator, n: int, drop: float, level: float) -> tuple[list[float], Paired]:
    """Shares before, and the comparison of a policy that became worse by `drop` of avg@k."""
    chance = rng.beta(0.4, 0.4, n)
    now, before = ((rng.binomial(K, p) / K).tolist() for p in (chance * (1 - drop / 0.5), chance))
    limits, resamples = (-1.0, 1.0), resamples_for(level)
    return before, paired_difference(dict(enumerate(now)), dict(enumerate(before)), limits, resamples)


def is_found(test: Paired, level: float) -> bool:
    return test.p <= level and test.mean < 0


if __name__ == "__main__":
    main()
