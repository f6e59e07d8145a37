"""How good a judge is, from its judgments of solutions whose first wrong step is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sgpo_core.types import Judgment


@dataclass(frozen=True, slots=True)
class JudgeScores:
    """`accuracy_erroneous`: share of erroneous solutions whose first wrong step is named exactly; `accuracy_correct`:
    share of correct ones in which none is found; None where there are none. `f1`: their harmonic mean, 0 when both are
    0 or either is None. An abstention counts as wrong in both, as an answer that can't be read does in ProcessBench.

    The erroneous ones are `early` (a step before the first wrong one is named: credit is lost), `exact`, `late` (the
    mistake is rewarded), `missed` (no error is found) or abstained; of the correct ones `false_alarms` are called
    wrong. `agreement` is the mean share of equal votes, None where nobody voted. Tokens are sums, and so are
    `checked_steps`, steps that the rule judge could check; None from any other judge.
    """

    erroneous: int
    correct: int
    accuracy_erroneous: float | None
    accuracy_correct: float | None
    f1: float
    abstained_frac: float
    early: int
    exact: int
    late: int
    missed: int
    false_alarms: int
    agreement: float | None
    prompt_tokens: int
    completion_tokens: int
    checked_steps: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """`overall` pools all solutions, except for `f1`: the mean of the subsets' F1s, as in ProcessBench (arXiv
    2412.06559, "average F1"), where a subset counts the same whatever its size."""

    overall: JudgeScores
    subsets: dict[str, JudgeScores]


def score(judgments: Sequence[Judgment], labels: Sequence[int], subsets: Sequence[str]) -> Report:
    """`labels`: 0-based index of the first wrong step, -1 for a correct solution; `subsets`: the name of each one's.
    All of the same length, at least 1."""
    rows = list(zip(judgments, labels, subsets, strict=True))
    names = dict.fromkeys(subsets)  # in the order in which they come
    scores = {name: _scores([(j, label) for j, label, subset in rows if subset == name]) for name in names}
    return Report(_scores([(j, label) for j, label, _ in rows], fmean(s.f1 for s in scores.values())), scores)


def _scores(rows: Sequence[tuple[Judgment, int]], f1: float | None = None) -> JudgeScores:
    answered = [(j.verdict.first_error_step, label) for j, label in rows if not j.verdict.abstained]
    named = [(step - 1, label) for step, label in answered if step is not None]
    on_erroneous = [(index, label) for index, label in named if label >= 0]
    missed = sum(step is None and label >= 0 for step, label in answered)
    found_none = sum(step is None and label < 0 for step, label in answered)
    erroneous = sum(label >= 0 for _, label in rows)
    exact = sum(index == label for index, label in on_erroneous)
    accuracies = _share(exact, erroneous), _share(found_none, len(rows) - erroneous)
    agreements = [j.agreement for j, _ in rows if j.agreement is not None]
    checked = [j.checked_steps for j, _ in rows if j.checked_steps is not None]
    return JudgeScores(
        erroneous=erroneous,
        correct=len(rows) - erroneous,
        accuracy_erroneous=accuracies[0],
        accuracy_correct=accuracies[1],
        f1=_harmonic_mean(*accuracies) if f1 is None else f1,
        abstained_frac=1 - len(answered) / len(rows),
        early=sum(index < label for index, label in on_erroneous),
        exact=exact,
        late=sum(index > label for index, label in on_erroneous),
        missed=missed,
        false_alarms=len(named) - len(on_erroneous),
        agreement=fmean(agreements) if agreements else None,
        prompt_tokens=sum(j.prompt_tokens for j, _ in rows),
        completion_tokens=sum(j.completion_tokens for j, _ in rows),
        checked_steps=sum(checked) if checked else None,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _harmonic_mean(a: float | None, b: float | None) -> float:
    return 2 * a * b / (a + b) if a and b else 0.0
