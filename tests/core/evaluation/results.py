"""Results of a benchmark that was never run."""

from __future__ import annotations

from dataclasses import replace

from sgpo_core.chains import problems as chains
from sgpo_core.config.data import BenchmarkSettings
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.evaluation.protocol import Protocol, Result, protocol
from sgpo_core.evaluation.scores import GradedResponse, score
from sgpo_core.types import Grade, Outcome

PROBLEMS = chains.make_problems(4, seed=0)


def graded(outcome: Outcome) -> GradedResponse:
    return GradedResponse(Grade(outcome, "1"), False, 5)


def made(**changes: object) -> Protocol:
    return replace(protocol("x", BenchmarkSettings(), EvaluationConfig(), PROBLEMS), **changes)  # type: ignore[arg-type]


def result(shares: list[int], weights: str = "w", of: Protocol | None = None) -> Result:
    """Of 20 problems with that many correct of 4 responses."""
    groups = [[graded(Outcome.CORRECT if i < share else Outcome.WRONG) for i in range(4)] for share in shares]
    per_problem = {f"p{i}": share / 4 for i, share in enumerate(shares)}
    return Result(weights, of or made(), score(groups), per_problem, 1.0)
