"""Which problems an iteration samples, and whether it samples more."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from datasets import Dataset

from sgpo_core.config.base import ConfigError
from sgpo_core.data.problems import as_problem, problems_of_iteration
from sgpo_core.rl.filters import Outcomes, is_mixed
from sgpo_core.types import Problem


def wants_more(groups: Sequence[Outcomes], wanted: int, rounds_done: int, max_rounds: int) -> bool:
    """DAPO's dynamic sampling (arXiv 2503.14476): another round while fewer than `wanted` groups are mixed.

    After `max_rounds` it goes on with what there is: a smaller batch, or none, never an endless round. [DAPO's own code
    raises an error there.]
    """
    return rounds_done < max_rounds and sum(map(is_mixed, groups)) < wanted


def problems_of_round(dataset: Dataset, per_round: int, seed: int, iteration: int, number: int) -> list[Problem]:
    """The problems of an iteration's round (from 0). Round 0 is that of every other algorithm with the same seed, so
    that runs stay paired; later rounds draw from streams of their own. A problem may come twice in an iteration."""
    if number == 0:
        return problems_of_iteration(dataset, per_round, seed, iteration)
    chosen = random.Random(f"round/{seed}/{iteration}/{number}").sample(range(len(dataset)), per_round)
    return [as_problem(dataset[i]) for i in chosen]


def problems_with_history(
    dataset: Dataset, per_iteration: int, seed: int, iteration: int, all_correct: Callable[[int], Mapping[str, bool]]
) -> list[Problem]:
    """SRPO's history resampling (arXiv 2504.14286): every pass over the problems leaves out those whose responses were
    all correct in the pass before; all-wrong and mixed ones stay.

    `all_correct(i)` gives problem id -> whether its group was all correct at the earlier iteration i (from 1). The
    record of the run is all the state there is, so that a resumed run chooses the same. The first pass is that of
    `problems_of_iteration`. A pass whose rest would be smaller than one iteration starts again with all problems.
    """
    pass_number, begins, left = 0, 1, list(range(len(dataset)))
    while True:
        iterations = len(left) // per_iteration
        if iterations == 0:
            if pass_number == 0:
                raise ConfigError(f"sampling.problems={per_iteration} is more than the {len(dataset)} problems")
            left = list(range(len(dataset)))
            continue
        order = sorted(left)
        random.Random(f"order/{seed}/{pass_number}").shuffle(order)
        if iteration < begins + iterations:
            at = (iteration - begins) * per_iteration
            return [as_problem(dataset[i]) for i in order[at : at + per_iteration]]
        solved: dict[str, bool] = {}
        for earlier in range(begins, begins + iterations):
            solved |= all_correct(earlier)
        ids = dataset["id"]
        left = [i for i in left if not solved.get(ids[i], False)]
        pass_number, begins = pass_number + 1, begins + iterations
