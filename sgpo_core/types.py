"""The typed, frozen records that travel between the stages of one iteration.

Problem -> Rollout -> Grade -> Verdict -> Credit -> advantage (a float) -> policy update
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Problem:
    """One task for the policy. `reference` is a worked solution, where the problem set has one."""

    id: str
    prompt: str
    answer: str
    reference: str | None = None


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

    `rts` is the reasoning trajectory score in [0, 1], None where the response was not judged. `shaped_reward` is the
    reward in [0, 1] that advantages are made of. A `neutral` response (its judge abstained) stays out of its group's
    mean and std, gets advantage 0 and gives no gradient; its `shaped_reward` (0) is not used.
    """

    shaped_reward: float
    rts: float | None = None
    neutral: bool = False
