"""Judges: who finds the first wrong step of a response. It need not be able to solve the problem (the paper, section of
the judge; see docs/judges.md).

A judge is a callable from many items to as many judgments, in their order. It raises nothing for bad model output, its
own or the policy's: what it can't say anything about is an abstention, never a made-up score.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sgpo_core.types import Judgment, Problem, Step, Verdict


@dataclass(frozen=True, slots=True)
class Item:
    """What a judge reads: a problem (its reference solution with it, where the judge is to see one) and the whole steps
    of one response to it."""

    problem: Problem
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """The response as far as it is judged."""
        return "".join(step.text for step in self.steps)


class Judge(Protocol):
    """See above. May be called from several threads at once."""

    def __call__(self, items: Sequence[Item]) -> list[Judgment]: ...


@dataclass(frozen=True, slots=True)
class RandomJudge:
    """A control: names a step at random, or none, each as likely; the same for the same response. SGPO must not learn
    from it: reward variance alone is no help."""

    seed: int = 0

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        return [Judgment(_random_verdict(item, f"random/{self.seed}")) for item in items]


@dataclass(frozen=True, slots=True)
class NoisyJudge:
    """Another judge, whose verdict is replaced with probability `noise` by a random one (the paper's reviewers: what if
    the judge errs?). Abstentions stay."""

    judge: Judge
    noise: float
    seed: int = 0

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        return [
            replace(judgment, verdict=_random_verdict(item, f"noise/{self.seed}"))
            if not judgment.verdict.abstained and self._hits(item)
            else judgment
            for item, judgment in zip(items, self.judge(items), strict=True)
        ]

    def _hits(self, item: Item) -> bool:
        return random.Random(f"hit/{self.seed}/{item.problem.id}/{item.text}").random() < self.noise


def _random_verdict(item: Item, purpose: str) -> Verdict:
    rng = random.Random(f"{purpose}/{item.problem.id}/{item.text}")
    return Verdict(rng.choice([None, *range(1, len(item.steps) + 1)]))
