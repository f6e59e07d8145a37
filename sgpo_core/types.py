"""The typed, frozen records that travel between the stages of one iteration.

Problem -> Rollout -> Grade -> Verdict -> Credit -> advantage (a float) -> policy update
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Problem:
    """One task for the policy. `reference` is a worked solution, where the problem set has one; `domain` names
    the part of the set that it belongs to, "" where that has none."""

    id: str
    prompt: str
    answer: str
    reference: str | None = None
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a response: characters `start` to `end` (exclusive) of its text."""

    start: int
    end: int
    text: str


class VerdictStatus(StrEnum):
    """OK: the judge did its work. ABSTAINED: it says nothing about the response, which is then neutral."""

    OK = "ok"
    ABSTAINED = "abstained"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of a response: the 1-based index of its first wrong step, None where it finds none."""

    first_error_step: int | None
    status: VerdictStatus = VerdictStatus.OK
    reason: str = ""

    @classmethod
    def abstain(cls, reason: str) -> Verdict:
        return cls(first_error_step=None, status=VerdictStatus.ABSTAINED, reason=reason)

    @property
    def abstained(self) -> bool:
        return self.status is VerdictStatus.ABSTAINED


@dataclass(frozen=True, slots=True)
class Credit:
    """What a response earns.

    `shaped_reward` is the reward that advantages are made of, in [0, 1] before shaping; `rts` the reasoning trajectory
    score in [0, 1], None where the response was not judged. A `neutral` response (its judge abstained) and one that the
    algorithm's filter `left_out` stay out of every mean and std, get advantage 0 and give no gradient; the
    `shaped_reward` (0) of a neutral one is not used.
    """

    shaped_reward: float
    rts: float | None = None
    neutral: bool = False
    correct: bool = False
    left_out: bool = False

    @property
    def counts(self) -> bool:
        return not (self.neutral or self.left_out)
