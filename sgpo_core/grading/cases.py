"""The grader's hard cases (cases.yaml): what has to come out, why, and what comes out today where that differs.

`python -m sgpo_core.grading.cases` grades them all and prints the table that docs/benchmarks.md holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgpo_core.grading.grader import GRADER, AnswerGrader
from sgpo_core.types import Outcome

_TABLE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. `today` is `expected` but for what is known to be graded wrongly."""

    kind: str
    gold: str
    response: str
    expected: Outcome
    why: str
    today: Outcome

    @property
    def known_wrong(self) -> bool:
        return self.today is not self.expected


def load_cases() -> list[Case]:
    """All cases, in the order of the file."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    table = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    for part, form in (("answers", "\\boxed{{{}}}"), ("responses", "{}")):
        for kind, rows in table[part].items():
            for gold, text, expected, why, *today in rows:
                outcome = Outcome(expected)
                yield Case(kind, gold, form.format(text), outcome, why, Outcome(today[0]) if today else outcome)


def as_markdown(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> str:
    """How many of each kind came out right, and every one that did not."""
    kinds = Counter(case.kind for case in cases)
    wrong = [(case, got) for case, got in zip(cases, outcomes, strict=True) if got is not case.expected]
    missed = Counter(case.kind for case, _ in wrong)
    lines = ["| kind | cases | right |", "|---|---|---|"]
    lines += [f"| {kind} | {count} | {count - missed[kind]} |" for kind, count in kinds.items()]
    lines += [f"| all | {len(cases)} | {len(cases) - len(wrong)} |", ""]
    lines += ["| gold | response | should be | is | why it should |", "|---|---|---|---|---|"]
    for case, got in wrong:
        gold, response = (f"`{text.replace('|', chr(92) + '|')}`" for text in (case.gold, case.response))
        lines.append(f"| {gold} | {response} | {case.expected} | {got} | {case.why} |")
    return "\n".join(lines)


def main() -> None:
    """Prints what came of the table, as docs/benchmarks.md shows it."""
    cases = load_cases()
    with AnswerGrader(deadline_s=3.0) as grader:
        grades = grader.grade([(case.gold, case.response) for case in cases])
    print(f"{GRADER}\n\n{as_markdown(cases, [grade.outcome for grade in grades])}")


if __name__ == "__main__":
    main()
