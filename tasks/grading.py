"""Grades the responses of an iteration: correct, wrong, unparsable, timeout or error."""

from __future__ import annotations

from sgpo_core.storage import rollout_table
from tasks.run import Run
from tasks.stage import stage


@stage("grade")
def grade(run: Run, iteration: int) -> None:
    """Most grades are here when the last response is; those of a table that was saved before a crash are made now."""
    path = run.paths.rollouts(iteration)
    groups = rollout_table.read(path)
    streamed = run.stream.take_graded()
    rollout_table.write(path, [streamed.get(group.number) or run.grader.grade_group(group) for group in groups])
