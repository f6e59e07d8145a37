"""Judging: who finds the first wrong step of the responses that credit asks about."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from statistics import mean

from prefect import get_run_logger

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.judges.rule import is_exact, rule
from sgpo_core.rl.credit import Scope
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import read_json
from sgpo_core.types import RolloutGroup
from tasks.judges.group_judge import judged_item
from tasks.judges.kinds import kind_of
from tasks.run import Run
from tasks.stage import Metrics, stage

FEWEST_COMPARED = 10  # for an alarm: of fewer verdicts an agreement says little


class JudgeFailed(RuntimeError):
    """The judge abstained too often for too long; the message says what to look at."""


@stage("judge")
def judge(run: Run, iteration: int) -> Metrics:
    """Verdicts for the responses that credit asks about. Most are here when the last response is; of a saved table
    (after a crash) all are made now."""
    began, path = time.monotonic(), run.paths.rollouts(iteration)
    groups = run.judge.complete(rollout_table.read(path), run.stream.take_judgments(iteration))
    rollout_table.write(path, groups)
    metrics = {"judge/seconds": run.judge.take_seconds(), "judge/wait_s": time.monotonic() - began}
    return metrics | _drift(run, iteration, groups)


def warn_of_blind_judge(settings: JudgeSettings, scope: Scope, source: str, prompts: Iterable[str]) -> None:
    """Says what the rule judge does not see in responses to these problems, where credit asks it about any. `source`:
    the setting that names the problems."""
    if scope == "none" or not kind_of(settings).is_exact_rule or all(is_exact(prompt) for prompt in prompts):
        return
    get_run_logger().warning(
        f"judge.name={settings.name} on {source}: this judge knows every step of chains alone. Here it sees wrong "
        "equations of plain numbers, such as 4 * 6 = 26, and nothing else: no wrong reasoning, no algebra, no number "
        "misread. It finds no error in most wrong responses, and algorithm.credit.no_error_found says what becomes of "
        "these (abstain: they teach nothing). The metric judge/checked_frac is the share of steps that it could check. "
        "Choose judge=trained, judge=llm or judge=endpoint, and measure it first (docs/judges.md)"
    )


def _drift(run: Run, iteration: int, groups: Sequence[RolloutGroup]) -> Metrics:
    """A trained judge knows the responses that it was trained on, and errs the more the further the policy moves away
    from them. A sample of its verdicts is compared with the rule judge's, where that one is exact."""
    settings = run.config.judge
    if kind_of(settings).is_exact_rule and settings.noise == 0:
        return {}
    rng = random.Random(f"drift/{run.config.seed}/{iteration}")
    sample = [
        (judged_item(group.problem, rollout), rollout.judgment.verdict)
        for group in groups
        for rollout in group.rollouts
        if rollout.judgment is not None
        and not rollout.judgment.verdict.abstained
        and rng.random() < settings.drift_sample
        and is_exact(group.problem.prompt)
    ]
    if not sample:
        return {}
    right = rule([item for item, _ in sample])
    agreement = mean(
        verdict.first_error_step == other.verdict.first_error_step
        for (_, verdict), other in zip(sample, right, strict=True)
    )
    alarm = agreement < settings.drift_alarm and len(sample) >= FEWEST_COMPARED
    if alarm:
        get_run_logger().warning(
            f"the judge agrees with the rule judge on {agreement:.0%} of {len(sample)} verdicts, less than "
            f"judge.drift_alarm={settings.drift_alarm:.0%}: what it rewards is not the correct prefix any more. Train "
            "it anew on this run's rollouts (docs/judges.md), or take a better one"
        )
    return {"judge/drift_agreement": agreement, "judge/drift_alarm": float(alarm)}


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
