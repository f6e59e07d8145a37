"""judging_start, judging_run: what a trained judge adds to SGPO on the miniature, against the rule judge, which costs
nothing: in the iterations in which every group is all-negative, and over a whole run.

Both as runs of one sweep, in turn on the same engines, three seeds each, of which the first only warms the engines up.
The median iteration (generation to sync, without evaluation) of the first kind, the sum of all iterations.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.figures import Figure
from bench.workload import iteration_records, run_module

MEASURED = (1, 2)  # seeds
STAGES = ("generate", "grade", "judge", "recompute_logprobs", "credit", "update", "sync")


def measure() -> Iterator[Figure]:
    run_module("flows.judge_training", "tiny")  # kept by its settings, and no part of a run
    runs = run_module("flows.sweep", "judges-tiny", "grid.judge=[rule,trained]")["runs"]
    rule, trained = (
        [record for seed in MEASURED for record in iteration_records(runs[f"judge={name}/s{seed}"])]
        for name in ("rule", "trained")
    )
    at_start = [statistics.median(_seconds(run, only_all_negative=True)) for run in (rule, trained)]
    whole = [sum(_seconds(run)) for run in (rule, trained)]
    waited = sum(record.get("judge/wait_s", 0.0) for record in trained)
    yield Figure(
        figure="judging_start",
        value=at_start[1],
        unit="s",
        goal=(">=", 1 / 1.25),
        peer=at_start[0],
        ratio=at_start[0] / at_start[1],
        how="median iteration while every group is all-negative, 128 verdicts each; peer: the rule judge",
    )
    yield Figure(
        figure="judging_run",
        value=whole[1],
        unit="s",
        goal=(">=", 1 / 1.10),
        peer=whole[0],
        ratio=whole[0] / whole[1],
        how=f"{len(trained)} iterations, of which {waited:.1f} s waited for verdicts; peer: the rule judge",
    )


def _seconds(run: list[dict[str, float]], only_all_negative: bool = False) -> list[float]:
    chosen = [m for m in run if not only_all_negative or m["group/all_negative_frac"] == 1.0]
    return [sum(m.get(f"time/{stage}_s", 0.0) for stage in STAGES) for m in chosen]
