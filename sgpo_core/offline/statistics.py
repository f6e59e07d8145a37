"""What a data set of responses is made of, and whether anything can be learned of it: counted before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgpo_core.config.data import AnswerForm
from sgpo_core.data.format_gate import malformed
from sgpo_core.types import Outcome, Rollout, RolloutGroup

RTS_BINS = 10
_MANY = 0.5  # share of responses from which on a warning names what is wrong with them


@dataclass(slots=True)
class Statistics:
    """Counts over responses and groups; histograms as value -> count. `signal` groups have responses with different
    advantages: only these teach. `unanswered` responses have no answer that could be read. `abstained` ones were
    judged, and nothing is known of them (they are excluded). `malformed`: by reason, see the format gate.
    """

    responses: int = 0
    groups: int = 0
    all_negative: int = 0
    mixed: int = 0
    all_positive: int = 0
    signal: int = 0
    correct: int = 0
    ungraded: int = 0
    unanswered: int = 0
    truncated: int = 0
    judged: int = 0
    abstained: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    steps: Counter[int] = field(default_factory=Counter)
    rts: Counter[int] = field(default_factory=Counter)  # by tenths: 0 is [0, 0.1), 9 is [0.9, 1]

    def add(self, groups: Sequence[RolloutGroup]) -> None:
        """Whole groups, graded, judged and with credit."""
        for group in groups:
            self.groups += 1
            self.sizes[len(group.rollouts)] += 1
            self.all_negative += group.all_negative
            self.all_positive += group.all_positive
            self.mixed += group.mixed
            self.signal += group.has_signal
            for rollout in group.rollouts:
                self._add(rollout, group.problem.answer_form)

    def _add(self, rollout: Rollout, form: AnswerForm) -> None:
        grade, credit = rollout.grade, rollout.credit
        self.responses += 1
        self.correct += rollout.correct
        self.ungraded += grade is None or grade.outcome in (Outcome.ERROR, Outcome.TIMEOUT)
        self.unanswered += grade is not None and grade.outcome is Outcome.UNPARSABLE
        self.truncated += rollout.truncated
        if reason := malformed(rollout.text, rollout.truncated, form):
            self.malformed[reason] += 1
        self.judged += rollout.judgment is not None
        self.abstained += rollout.judgment is not None and (credit is None or credit.excluded)
        self.lengths[len(rollout.token_ids)] += 1
        self.steps[len(rollout.step_ends or ())] += 1
        if credit is not None and credit.rts is not None:
            self.rts[min(RTS_BINS - 1, int(credit.rts * RTS_BINS))] += 1

    def to_json(self) -> dict[str, Any]:
        """For a file; histograms as lists of (value, count), ascending."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: sorted(v.items()) if isinstance(v, Counter) else v for name, v in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Statistics:
        """What `to_json` gave."""
        read: dict[str, Any] = {k: Counter(dict(v)) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**read)


def mean(histogram: Mapping[int, int]) -> float:
    """Of what was counted; 0 of nothing."""
    count = sum(histogram.values())
    return sum(value * n for value, n in histogram.items()) / count if count else 0.0


def quantile(histogram: Mapping[int, int], share: float) -> int:
    """The smallest value that at least this share of the counted values does not exceed; 0 of nothing."""
    wanted, seen = share * sum(histogram.values()), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= wanted:
            return value
    return 0


def as_rows(s: Statistics) -> list[tuple[str, str]]:
    """What a person reads, as (name, value)."""

    def part(count: int, of: int) -> str:
        return f"{count:,} ({count / of:.1%})" if of else f"{count:,}"

    def spread(histogram: Mapping[int, int]) -> str:
        low, middle, high = (quantile(histogram, q) for q in (0.05, 0.5, 0.95))
        return f"mean {mean(histogram):.1f}, median {middle}, 90 % in {low}-{high}, longest {max(histogram, default=0)}"

    rts = " ".join(f"{s.rts[i]:,}" for i in range(RTS_BINS)) if s.rts else "-"
    return [
        ("responses", f"{s.responses:,}"),
        ("groups", f"{s.groups:,}, of {quantile(s.sizes, 0)}-{max(s.sizes, default=0)} responses"),
        ("all-negative groups", part(s.all_negative, s.groups)),
        ("mixed groups", part(s.mixed, s.groups)),
        ("all-positive groups", part(s.all_positive, s.groups)),
        ("groups with signal", part(s.signal, s.groups)),
        ("correct responses", part(s.correct, s.responses)),
        ("not gradable", part(s.ungraded, s.responses)),
        ("without a readable answer", part(s.unanswered, s.responses)),
        ("truncated", part(s.truncated, s.responses)),
        ("malformed", f"{part(s.malformed.total(), s.responses)} {_reasons(s)}".rstrip()),
        ("judged", part(s.judged, s.responses)),
        ("abstained", part(s.abstained, s.judged)),
        ("RTS, by tenths from 0 to 1", rts),
        ("tokens a response", spread(s.lengths)),
        ("steps a response", spread(s.steps)),
    ]


def _reasons(s: Statistics) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in s.malformed.most_common())


def warnings(s: Statistics, algorithm: str) -> list[str]:
    """What should be known before time is spent on training."""
    return [line for line in (_on_signal(s, algorithm), _on_answers(s), _on_form(s)) if line]


def _on_signal(s: Statistics, algorithm: str) -> str:
    if s.signal == 0:
        why = f"{s.all_negative:,} are all-negative, {s.all_positive:,} all-positive"
        help_ = (
            "under a judge all-negative groups teach: algorithm=sgpo"
            if not s.judged
            else f"of {s.judged:,} judged responses the judge abstained on {s.abstained:,}"
        )
        return (
            f"nothing can be learned: none of the {s.groups:,} groups has a signal under {algorithm} ({why}); {help_}"
        )
    if s.signal < 0.05 * s.groups:
        return f"little can be learned: {s.signal:,} of {s.groups:,} groups have a signal under {algorithm}"
    return ""


def _on_answers(s: Statistics) -> str:
    if s.unanswered <= _MANY * s.responses:
        return ""
    return (
        f"{s.unanswered:,} of {s.responses:,} responses have no answer that can be read, and count as wrong: "
        "data.answer_form says in which form they give it"
    )


def _on_form(s: Statistics) -> str:
    if s.malformed.total() <= _MANY * s.responses:
        return ""
    return (
        f"{s.malformed.total():,} of {s.responses:,} responses are malformed ({_reasons(s)}): judged, they have RTS 0 "
        "unless algorithm.credit.format_gate=false (docs/steps.md says what the form is)"
    )
