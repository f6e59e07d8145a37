"""Records for tests: what a test does not name has a value that it does not look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgpo_core.types import FloatArray, Grade, IntArray, Outcome, Problem, Rollout, RolloutGroup

RIGHT, WRONG, FAILED = Grade(Outcome.CORRECT, "7"), Grade(Outcome.WRONG, "8"), Grade(Outcome.ERROR)


def ints(*values: int) -> IntArray:
    return np.array(values, np.int32)


def floats(*values: float) -> FloatArray:
    return np.array(values, np.float32)


def rollout(sample: int = 0, **fields: Any) -> Rollout:
    given = {"text": "", "truncated": False, "token_ids": ints(), "rollout_logprobs": floats()}
    return Rollout(sample, **{**given, **fields})


def group(number: int, rollouts: Sequence[Rollout], problem: Problem | None = None, *prompt_ids: int) -> RolloutGroup:
    return RolloutGroup(number, problem or Problem("p", "?", "7"), ints(*prompt_ids), tuple(rollouts))
