"""Problems that tests of this folder share."""

from __future__ import annotations

import pytest

from sgpo_core.config.run import load_run
from sgpo_core.data.problems import as_problem, load_problems
from sgpo_core.types import Problem


@pytest.fixture(scope="session")
def tiny_sets() -> tuple[list[Problem], list[Problem]]:
    """Training and evaluation problems of conf/online/tiny."""
    config = load_run("tiny")
    (benchmark,) = config.eval.sets.values()
    assert (config.data.seed, config.data.count) == (0, 2048)
    assert (benchmark.data.seed, benchmark.data.count) == (1, 64)
    train, held_out = ([as_problem(row) for row in load_problems(data)] for data in (config.data, benchmark.data))
    return train, held_out
