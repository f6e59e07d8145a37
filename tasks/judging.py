"""Judging: who finds the first wrong step of the responses that credit asks about."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from statistics import mean
from typing import Any

from prefect import get_run_logger

from sgpo_core import rollout_table
from sgpo_core.files import read_json
from sgpo_core.judge import rule
from sgpo_core.judge_settings import JudgeSettings
from sgpo_core.rule_judge import is_exact
from sgpo_core.types import VerdictStatus
from tasks.judges import JUDGED_COLUMNS, item_of_row
from tasks.run import Run, phase

FEWEST_COMPARED = 10  # for an alarm: of fewer verdicts an agreement says little


class JudgeFailed(RuntimeError):
    """The judge abstained too often for too long; the message says what to look at."""


@phase("judge")
def judge(run: Run, iteration: int) -> None:
    """Verdicts for the responses that credit asks about. Most are here when the last response is; of a saved table
    (after a crash) all are made now."""
    began, path = time.monotonic(), run.paths.rollouts(iteration)
    table = rollout_table.read(path, JUDGED_COLUMNS)
    columns = run.judging.columns(table, run.stream.take_judgements())
    rollout_table.add(path, columns)
    run.metrics["judge/seconds"] = run.judging.take_seconds()
    run.metrics["judge/wait_s"] = time.monotonic() - began
    _watch_drift(run, iteration, {**table, **columns})


def _watch_drift(run: Run, iteration: int, table: dict[str, list[Any]]) -> None:
    """A trained judge knows the responses that it was trained on, and errs the more the further the policy moves away
    from them. A sample of its verdicts is compared with the rule judge's, where that one is exact."""
    settings = run.config.judge
    if settings.name == "rule" and settings.noise == 0:
        return
    rng = random.Random(f"drift/{run.config.seed}/{iteration}")
    sample = [
        i
        for i, status in enumerate(table["verdict_status"])
        if status == VerdictStatus.OK and rng.random() < settings.drift_sample and is_exact(table["prompt"][i])
    ]
    if not sample:
        return
    right = rule([item_of_row(table, i) for i in sample])
    agreement = mean(
        table["first_error_step"][i] == other.verdict.first_error_step for i, other in zip(sample, right, strict=True)
    )
    alarm = agreement < settings.drift_alarm and len(sample) >= FEWEST_COMPARED
    run.metrics |= {"judge/drift_agreement": agreement, "judge/drift_alarm": float(alarm)}
    if alarm:
        get_run_logger().warning(
            f"the judge agrees with the rule judge on {agreement:.0%} of {len(sample)} verdicts, less than "
            f"judge.drift_alarm={settings.drift_alarm:.0%}: what it rewards is not the correct prefix any more. Train "
            "it anew on this run's rollouts (docs/judges.md), or take a better one"
        )


def check_judge(run: Run, iteration: int) -> None:
    """Stops a run whose judge failed in each of the last `judge.patience` iterations, this one included."""
    window = range(max(1, iteration - run.config.judge.patience + 1), iteration + 1)
    recent = [read_json(run.paths.metrics(i))["metrics"] for i in window]
    shares = [metrics["judge/abstained_frac"] for metrics in recent]
    stop_in_time(shares, run.config.judge, "iterations", str(run.paths.rollouts(iteration)))


def stop_in_time(shares: Sequence[float], judge: JudgeSettings, parts: str, reasons: str) -> None:
    """Raises JudgeFailed when the judge abstained too often in each of the last `judge.patience` parts of the work;
    `shares` are the abstained ones, in order, `reasons` where to read them."""
    if len(shares) < judge.patience or min(shares[-judge.patience :]) <= judge.max_abstained_frac:
        return
    raise JudgeFailed(
        f"the judge abstained on {shares[-1]:.0%} of what it was asked, and on more than judge.max_abstained_frac="
        f"{judge.max_abstained_frac:.0%} in each of {judge.patience} {parts} (judge.patience): what it teaches is not "
        f"the paper's method any more. Its reasons: column verdict_reason of {reasons}"
    )
