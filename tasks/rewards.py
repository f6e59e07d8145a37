"""The two stages that turn responses into rewards: grades, and once they are judged, credit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from prefect import get_run_logger

from sgpo_core.config.algorithm import CreditSettings
from sgpo_core.data.format_gate import malformed
from sgpo_core.storage import rollout_table
from sgpo_core.types import RolloutGroup
from tasks.run import Run
from tasks.stage import stage

_MANY = 0.5  # share of responses


@stage("grade")
def grade(run: Run, iteration: int) -> None:
    """Correct, wrong, unparsable, timeout or error. Most grades are here when the last response is; those of a table
    that was saved before a crash are made now."""
    path = run.paths.rollouts(iteration)
    groups = rollout_table.read(path)
    streamed = run.stream.take_graded(iteration)
    rollout_table.write(path, [streamed.get(group.number) or run.grader.grade_group(group) for group in groups])


@stage("credit")
def assign_credit(run: Run, iteration: int) -> None:
    """RTS, shaped reward, advantage of every response, and the share of it that each of its tokens gets."""
    path = run.paths.rollouts(iteration)
    groups = run.credit(rollout_table.read(path))
    rollout_table.write(path, groups)
    if iteration == 1:
        warn_of_form(groups, run.config.algorithm.credit, run.config.sampling.max_tokens)


def warn_of_form(groups: Sequence[RolloutGroup], credit: CreditSettings, max_tokens: int) -> None:
    """Says so when most of the first responses can earn no partial credit, however good their steps are."""
    if credit.scope == "none":
        return
    rollouts = [(rollout, group.problem.answer_form) for group in groups for rollout in group.rollouts]
    log, n = get_run_logger(), len(rollouts)
    truncated = sum(r.truncated and not r.correct for r, _ in rollouts)
    found = [malformed(r.text, False, form) for r, form in rollouts if not r.truncated]
    reasons = Counter(reason for reason in found if reason)
    if truncated > _MANY * n and credit.truncated == "nothing":
        log.warning(
            f"{truncated} of the first {n} responses were cut off at sampling.max_tokens={max_tokens} and earn nothing "
            "(algorithm.credit.truncated): raise it, or have the policy answer in fewer words (model.instruction)"
        )
    if reasons.total() > _MANY * (n - truncated) and credit.format_gate:
        named = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        log.warning(
            f"{reasons.total()} of the first {n - truncated} complete responses are malformed ({named}), and earn "
            "nothing if they are wrong. Say in model.instruction how to answer and in data.answer_form how it does, "
            "start from a policy that knows the form, or set algorithm.credit.format_gate=false (docs/steps.md)"
        )
