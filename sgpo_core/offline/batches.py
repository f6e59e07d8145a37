"""Which groups of a data set each offline iteration trains on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import GroupChoice
from sgpo_core.offline.store import Groups
from sgpo_core.rl.batching import mini_batches


def chosen_groups(groups: Groups, choice: GroupChoice) -> list[int]:
    """The groups that are trained on, by their outcomes alone. Raises ConfigError where there is none."""
    correct, wrong = groups.correct > 0, groups.wrong > 0
    keep = {
        "all": np.ones(len(groups), bool),
        "positive": correct,
        "negative": ~correct,
        "mixed": correct & wrong,
    }[choice]
    if not keep.any():
        raise ConfigError(
            f"groups={choice}: the data set has no such group ({len(groups)} groups, {int(correct.sum())} with a "
            f"correct response, {int((correct & wrong).sum())} mixed)"
        )
    return [int(g) for g in np.flatnonzero(keep)]


class OfflineBatches:
    """The chosen groups in an order of its own for every epoch, split over iterations of at most `per_iteration`
    groups, as equal as can be: every group is seen once an epoch. A function of its arguments and the iteration alone,
    so that a run which resumes goes on with what it would have seen."""

    def __init__(self, groups: Groups, chosen: list[int], per_iteration: int, seed: int) -> None:
        self.groups, self.chosen, self.seed = groups, chosen, seed
        self.per_epoch = -(-len(chosen) // per_iteration)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def groups_of(self, iteration: int) -> list[int]:
        """The groups of an iteration, counted from 1."""
        epoch, number = divmod(iteration - 1, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, mini_batches(self.chosen, self.per_epoch, f"responses/{self.seed}/{epoch}")
        return self._epoch[1][number]

    def table(self, iteration: int) -> pa.Table:
        """The responses of an iteration, their groups numbered from 0."""
        return self.groups.rows(self.groups_of(iteration))
