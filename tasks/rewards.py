"""The two stages that turn responses into rewards: grades, and once they are judged, credit."""

from __future__ import annotations

from sgpo_core.storage import rollout_table
from tasks.run import Run
from tasks.stage import stage


@stage("grade")
def grade(run: Run, iteration: int) -> None:
    """Correct, wrong, unparsable, timeout or error. Most grades are here when the last response is; those of a table
    that was saved before a crash are made now."""
    path = run.paths.rollouts(iteration)
    groups = rollout_table.read(path)
    streamed = run.stream.take_graded()
    rollout_table.write(path, [streamed.get(group.number) or run.grader.grade_group(group) for group in groups])


@stage("credit")
def assign_credit(run: Run, iteration: int) -> None:
    """RTS, shaped reward, advantage of every response, and the share of it that each of its tokens gets."""
    path = run.paths.rollouts(iteration)
    rollout_table.write(path, run.credit(rollout_table.read(path)))
