"""The reference judge: what a worked solution says of a response, by its numbers. No model, no cost. [ours]

For problems with worked solutions in numbers (GSM8K). A wrong response follows its worked solution as far as it reaches
numbers of it that the problem does not give, or writes equations of it (`7 + 1 = 8`, where the problem has an 8, too).
Its first wrong step is the first of these:

    a step with a false equation                                                                (`equations`)
    a step with a number that neither the problem nor the worked solution has
    the step behind the last one that reached a new number or equation of the worked solution; what comes behind three
    steps that reach none is not looked at

So idle steps, however true, end the prefix, and earn little before its end. A response that ends with the right answer
has a wrong step only where an equation is false. A right solution that takes another way looks wrong where it leaves
this one; that matters little, since the judge is asked about responses whose answer is wrong. docs/judges.md measures
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sgpo_core.judges.base import Item
from sgpo_core.judges.equations import equations
from sgpo_core.judges.math_tokens import Kind, tokens
from sgpo_core.types import Judgment, Step, Verdict

VERSION = "numbers-v3"  # another one judges recorded responses anew
_ALWAYS = {Fraction(n) for n in (0, 1, 2, 100)}  # counts, pairs, percent: in everybody's way of saying the same
_LABEL = re.compile(  # of a numbered step
    r"^[ \t]*(?:\#{1,6}[ \t]+)?(?:\*\*)?(?:[Ss]tep[ \t]+)?\(?\d{1,2}[:.)](?!\d)", re.MULTILINE
)
_BOX = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_LONGEST, _STRANGE = 30, Fraction(-1)  # characters of a number that is read; what a longer one is, which nobody has
_MARK = re.compile(r"<<[^<>\n]{0,200}>>|####")  # of GSM8K's worked solutions
_IDLE = 3  # steps that reach nothing new, and end the search: two may be an introduction and a plan
_NAMED = {
    **{"half": 2, "twice": 2, "double": 2, "triple": 3, "thrice": 3, "third": 3, "quarter": 4, "dozen": 12},
    **{"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "week": 7, "day": 24, "hour": 60, "minute": 60, "year": 12},
}
_WORD = re.compile(r"[a-z]+")


def reference(items: Sequence[Item]) -> list[Judgment]:
    """As a `Judge`. It abstains where there is no worked solution, or none with numbers."""
    return [Judgment(_verdict(item)) for item in items]


def _verdict(item: Item) -> Verdict:
    steps, worked = item.steps, _LABEL.sub("", _MARK.sub(" ", item.problem.reference or ""))
    if not steps:
        return Verdict.abstain("empty response")
    solution = list(_numbers(worked))
    if not solution:
        return Verdict.abstain("no worked solution with numbers: judge.name=reference needs data.reference_column")
    wrong = next((i for i, step in enumerate(steps) if any(not e.holds for e in equations(step.text))), len(steps))
    answer = list(_numbers(item.problem.answer)) or solution[-1:]
    if wrong == len(steps) and _ends_with(steps[-1].text, answer[-1], _is_negative(item.problem.answer)):
        return Verdict(None)
    given = {*_numbers(item.problem.prompt), *_named(item.problem.prompt)}
    return Verdict(min(wrong, _leaves(steps, given, worked)) + 1)


def _ends_with(step: str, answer: Fraction, negative: bool) -> bool:
    """Whether that is what it boxes, or without a box one of its numbers (of either sign)."""
    if boxes := _BOX.findall(step):
        return list(_numbers(boxes[-1])) == [answer] and _is_negative(boxes[-1]) == negative
    return answer in _numbers(step)


def _is_negative(number: str) -> bool:
    return number.strip().startswith(("-", "\u2212"))


def _leaves(steps: Sequence[Step], given: set[Fraction], worked: str) -> int:
    """Index of the step in which a wrong response leaves the worked solution."""
    solution = set(_numbers(worked))
    known, new = given | solution | _ALWAYS, solution - given - _ALWAYS
    to_write = _true_equations(worked)
    written = [set(_numbers(_LABEL.sub("", step.text))) for step in steps]
    strange = next((i for i, numbers in enumerate(written) if numbers - known), len(steps) - 1)
    last, reaching = -1, 0
    for i, step in enumerate(steps[:strange]):
        if i - reaching == _IDLE:
            break
        found = [e for e in _true_equations(step.text) if _remove(to_write, e)]
        said = (written[i] & new) - {number for e in found for number in e.right}
        for number in said:  # a result: to write its equation afterwards is nothing new
            _remove(to_write, next((e for e in to_write if e.right == (number,)), None))
        if found or said:
            new, last, reaching = new - written[i], i, reaching + 1
    return last + 1


@dataclass(frozen=True, slots=True)
class _Written:
    """An equation by what it says: the numbers of its left side in any order, and its right side."""

    left: tuple[Fraction, ...]
    right: tuple[Fraction, ...]
    negative: bool


def _true_equations(text: str) -> list[_Written]:
    found = []
    for sides in (text[e.start : e.end].rpartition("=") for e in equations(text) if e.holds):
        left, right = (tuple(_numbers(side)) for side in (sides[0], sides[2]))
        found.append(_Written(tuple(sorted(left)), right, _is_negative(sides[2])))
    return found


def _remove(equations: list[_Written], one: _Written | None) -> bool:
    """Whether it was there."""
    if one not in equations:
        return False
    equations.remove(one)
    return True


def _numbers(text: str) -> Iterator[Fraction]:
    found = (token.text for token in tokens(text) if token.kind is Kind.NUMBER)
    return (Fraction(number) if len(number) <= _LONGEST else _STRANGE for number in found)


def _named(text: str) -> Iterator[Fraction]:
    return (Fraction(_NAMED[word]) for found in _WORD.findall(text.lower()) if (word := found.rstrip("s")) in _NAMED)
