"""Grades the responses of an iteration: correct, wrong, unparsable, timeout or error."""

from __future__ import annotations

from sgpo_core import rollout_table
from tasks.run import Run, phase


@phase("grade")
def grade(run: Run, iteration: int) -> None:
    path = run.paths.rollouts(iteration)
    table = rollout_table.read(path, ["answer", "response"])
    grades = run.grader.grade(list(zip(table["answer"], table["response"], strict=True)))
    rollout_table.add(
        path,
        {
            "grade": [g.outcome.value for g in grades],
            "extracted_answer": [g.extracted for g in grades],
            "outcome_reward": [g.reward for g in grades],
        },
    )
