"""Credit: from verdicts to rewards, advantages, and what of them each token gets."""

from __future__ import annotations

from sgpo_core.storage import rollout_table
from tasks.run import Run
from tasks.stage import stage


@stage("credit")
def assign_credit(run: Run, iteration: int) -> None:
    """RTS, shaped reward, advantage of every response, and the share of it that each of its tokens gets."""
    path = run.paths.rollouts(iteration)
    rollout_table.write(path, run.credit(rollout_table.read(path)))
