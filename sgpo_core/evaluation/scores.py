"""Scores of a benchmark from its graded responses: k to each problem, the same k for all.

    avg@k    mean over problems of the share of correct responses; its uncertainty is over problems
    pass@j   chance that one or more of j drawn responses is correct, unbiased from k >= j:
             1 - C(k - c, j) / C(k, j) with c correct ones                    Chen et al. 2021, arXiv 2107.03374, eq. 1
    maj@k    share of problems whose most frequent answer is correct          Wang et al. 2022, arXiv 2203.11171

Answers vote as they are written but for spaces and style (`answer_forms.canonical`): 1/2 and 0.5 are two candidates. A
tie goes to the answer given first; a response without an answer has no vote.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgpo_core.analysis.statistics import mean_interval
from sgpo_core.grading.answer_forms import canonical
from sgpo_core.types import Grade, Outcome


@dataclass(frozen=True, slots=True)
class GradedResponse:
    """What scores need to know of one response; `tokens` is its length."""

    grade: Grade
    truncated: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares are 0..1, lengths in tokens.

    stderr: standard error of avg@k over problems. low, high: its 95 % interval (`mean_interval`: BCa bootstrap from 30
    problems on, Student's t for fewer); NaN where there is none, for fewer than 3 problems, or if all have the same
    share of correct responses. pass_at: j -> pass@j for j = 1, 2, 4, ... and k. failed_frac: responses whose grading
    timed out or broke; they count as wrong.
    """

    problems: int
    k: int
    avg_at_k: float
    stderr: float
    low: float
    high: float
    pass_at: Mapping[int, float]
    maj_at_k: float
    no_answer_frac: float
    truncated_frac: float
    failed_frac: float
    length_mean: float

    def metrics(self, benchmark: str) -> dict[str, float]:
        """Flat names, as in MLflow."""
        values = {
            "avg_at_k": self.avg_at_k,
            "avg_stderr": self.stderr,
            "avg_low": self.low,
            "avg_high": self.high,
            "pass_at_k": self.pass_at[self.k],
            "maj_at_k": self.maj_at_k,
            "no_answer_frac": self.no_answer_frac,
            "truncated_frac": self.truncated_frac,
            "failed_frac": self.failed_frac,
            "length_mean": self.length_mean,
        }
        return {f"eval/{benchmark}/{name}": value for name, value in values.items() if math.isfinite(value)}

    def interval(self) -> str:
        """The 95 % interval of avg@k as text, `-` where there is none."""
        return f"{self.low:.3f} to {self.high:.3f}" if math.isfinite(self.low) else "-"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scores:
        return cls(**{**value, "pass_at": {int(j): share for j, share in value["pass_at"].items()}})


def score(groups: Sequence[Sequence[GradedResponse]]) -> Scores:
    """Of the responses to every problem. ValueError: no problem, or not the same number of responses to all."""
    sizes = {len(group) for group in groups}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(
            f"scores need the same number of responses to every problem, one or more; there are {sorted(sizes)}"
        )
    k, problems, total = sizes.pop(), len(groups), sum(map(len, groups))
    responses = [response for group in groups for response in group]
    averages = [sum(r.grade.correct for r in group) / k for group in groups]
    interval = mean_interval(averages, limits=(0.0, 1.0))
    known = interval.kind in ("95 % t", "95 % BCa")  # a range is no 95 % interval, which the scores name it
    return Scores(
        problems=problems,
        k=k,
        avg_at_k=statistics.fmean(averages),
        stderr=statistics.stdev(averages) / math.sqrt(problems) if problems > 1 else math.nan,
        low=interval.low if known else math.nan,
        high=interval.high if known else math.nan,
        pass_at={
            j: statistics.fmean(pass_at(j, k, sum(r.grade.correct for r in g)) for g in groups) for j in _draws(k)
        },
        maj_at_k=statistics.fmean(majority(group) for group in groups),
        no_answer_frac=sum(r.grade.extracted is None for r in responses) / total,
        truncated_frac=sum(r.truncated for r in responses) / total,
        failed_frac=sum(r.grade.outcome in (Outcome.TIMEOUT, Outcome.ERROR) for r in responses) / total,
        length_mean=sum(r.tokens for r in responses) / total,
    )


def pass_at(j: int, k: int, correct: int) -> float:
    """Chance that j of k responses, drawn without replacement, hold one or more of the `correct` ones."""
    if not 1 <= j <= k or not 0 <= correct <= k:
        raise ValueError(f"pass@{j} of {k} responses, {correct} of them correct, is not defined")
    return 1 - math.comb(k - correct, j) / math.comb(k, j)


def majority(group: Sequence[GradedResponse]) -> bool:
    """Whether the most frequent answer is correct."""
    votes = [(canonical(r.grade.extracted), r.grade.correct) for r in group if r.grade.extracted is not None]
    if not votes:
        return False
    winner, _ = Counter(answer for answer, _ in votes).most_common(1)[0]  # a tie goes to the answer given first
    return next(correct for answer, correct in votes if answer == winner)


def _draws(k: int) -> list[int]:
    return sorted({*(2**i for i in range(k.bit_length()) if 2**i <= k), k})
