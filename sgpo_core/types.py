"""The typed, frozen records that travel between the stages of one iteration.

    Problem ─generate─▶ RolloutGroup of Rollouts ─grade─▶ Grade ─judge─▶ Judgment ─credit─▶ Credit ─update─▶ weights

Each stage replaces a rollout by one with a further record. A record is None until its stage has run.
`storage/rollout_table.py` reads and writes them all as rollouts.parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from sgpo_core.config.data import AnswerForm

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Problem:
    """One task for the policy. `reference` is a worked solution, where the problem set has one; `domain` names
    the part of the set that it belongs to, "" where that has none; `answer_form` says how a response has to give its
    final answer (`grading.final_answers`)."""

    id: str
    prompt: str
    answer: str
    reference: str | None = None
    domain: str = ""
    answer_form: AnswerForm = "boxed"


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a response: characters `start` to `end` (exclusive) of its text."""

    start: int
    end: int
    text: str


class Outcome(StrEnum):
    """What became of a response's answer.

    UNPARSABLE: none found, or none that can be read. TIMEOUT: comparing it took longer than the deadline.
    ERROR: no fault of the response, or not known to be one: the gold answer is unusable, or the comparing process
    could not start or died.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Grade:
    """The outcome for one response; `extracted` is its answer as written, None where none was found."""

    outcome: Outcome
    extracted: str | None = None

    @property
    def correct(self) -> bool:
        return self.outcome is Outcome.CORRECT

    @property
    def known(self) -> bool:
        """False where grading itself failed: then nothing is known of the response."""
        return self.outcome is not Outcome.ERROR

    @property
    def reward(self) -> float:
        """The outcome reward: 1 for a correct answer, else 0."""
        return float(self.correct)


class VerdictStatus(StrEnum):
    """OK: the judge did its work. ABSTAINED: it says nothing about the response, which is then excluded."""

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
class Judgment:
    """A verdict, and what it took: the votes it was made of (one where the judge was asked once), the share of them
    that say the same (None where nobody voted), tokens read and written. `cached`: known from an earlier response or
    run, which took these tokens. `transient`: an abstention for want of a reply (no answer, spending cap), so that
    asking again may help; it is not kept. `checked_steps`: how many of the steps shown the rule judge could check; None
    from any other judge."""

    verdict: Verdict
    votes: tuple[Verdict, ...] = ()
    agreement: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    transient: bool = False
    checked_steps: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """What the trainer says of a response's tokens before the update: `logprobs` float32 [tokens], nats, and
    `entropies` float32 [tokens], nats, of the distribution that each was drawn from."""

    logprobs: FloatArray
    entropies: FloatArray


@dataclass(frozen=True, slots=True)
class Credit:
    """What a response earns, and what that makes of it in the update.

    `shaped_reward` is the reward that advantages are made of, in [0, 1] before shaping; `rts` the reasoning trajectory
    score in [0, 1), None where the response was not judged; `padded` whether it is longer than a solution is expected
    to be. An `excluded` response (nothing is known of it: its judge
    abstained, or grading failed) and one that the algorithm's filter has `filtered` out stay out of every mean and std,
    get advantage 0 and give no gradient; the `shaped_reward` (0) of an excluded one is not used. `token_credit` float32
    [tokens] is the share of the advantage that each token gets; 0: no gradient.
    """

    shaped_reward: float
    rts: float | None = None
    padded: bool = False
    excluded: bool = False
    correct: bool = False
    filtered: bool = False
    advantage: float = 0.0
    token_credit: FloatArray | None = None

    @property
    def counts(self) -> bool:
        return not (self.excluded or self.filtered)


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One sampled response, and all that the stages have found out about it.

    `token_ids` int32 [tokens], end-of-sequence included; `rollout_logprobs` float32 [tokens], nats, of the distribution
    that they were sampled from; `text` is what they spell without special tokens. `truncated`: cut off at the length
    limit. `policy_version`: optimizer iterations of the policy that sampled it. `step_ends`: character offset behind
    each step.
    """

    sample: int
    text: str
    truncated: bool
    token_ids: IntArray
    rollout_logprobs: FloatArray
    policy_version: int = 0
    seed: int = 0
    grade: Grade | None = None
    step_ends: tuple[int, ...] | None = None
    judgment: Judgment | None = None
    recomputed: TokenLogprobs | None = None
    credit: Credit | None = None

    @property
    def correct(self) -> bool:
        """Whether its answer was graded correct."""
        return self.grade is not None and self.grade.correct


@dataclass(frozen=True, slots=True, eq=False)
class RolloutGroup:
    """The responses to one problem, whose rewards are compared with each other. `number` counts the groups of an
    iteration; `prompt_ids` int32 [prompt tokens]."""

    number: int
    problem: Problem
    prompt_ids: IntArray
    rollouts: tuple[Rollout, ...]

    @property
    def outcomes(self) -> list[bool | None]:
        """Of each response whether it is correct; None where that is not known."""
        return [r.grade.correct if r.grade is not None and r.grade.known else None for r in self.rollouts]

    @property
    def all_negative(self) -> bool:
        """No correct response, by the outcome alone."""
        return not any(r.correct for r in self.rollouts)

    @property
    def all_positive(self) -> bool:
        return all(r.correct for r in self.rollouts)

    @property
    def mixed(self) -> bool:
        return not (self.all_negative or self.all_positive)

    @property
    def has_signal(self) -> bool:
        """Whether any response has an advantage other than 0."""
        return any(r.credit is not None and r.credit.advantage != 0 for r in self.rollouts)

    def with_rollouts(self, rollouts: Sequence[Rollout]) -> RolloutGroup:
        return replace(self, rollouts=tuple(rollouts))
