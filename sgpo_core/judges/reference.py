"""The reference judge: what a worked solution says of a response, by its numbers. No model, no cost. [ours]

For problems with worked solutions in numbers (GSM8K). A wrong response follows its worked solution as far as it reaches
numbers of it that the problem does not give, or equations of it (by their numbers: `7 + 1 = 8` may give an 8 that the
problem has, too). Its first wrong step is the first of these:

    a step with a false equation                                                                (`equations`)
    a step with a number that neither the problem nor the worked solution has
    the step behind the last one that reached a new number or equation of the worked solution, and the third step in a
    row that reaches none

So idle steps, however true, end the prefix. A response that ends with the right answer has a wrong step only where an
equation is false. A right solution that takes another way looks wrong where it leaves this one; that matters little,
since the judge is asked about responses whose answer is wrong. docs/judges.md measures it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from sgpo_core.judges.base import Item
from sgpo_core.judges.equations import equations
from sgpo_core.judges.math_tokens import Kind, tokens
from sgpo_core.types import Judgment, Step, Verdict

VERSION = "numbers-v2"  # another one judges recorded responses anew
_ALWAYS = {Fraction(n) for n in (0, 1, 2, 100)}  # counts, pairs, percent: in everybody's way of saying the same
_LABEL = re.compile(  # of a numbered step
    r"^[ \t]*(?:\#{1,6}[ \t]+)?(?:\*\*)?(?:[Ss]tep[ \t]+)?\(?\d{1,2}[:.)](?!\d)", re.MULTILINE
)
_BOX = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_LONGEST, _STRANGE = 30, Fraction(-1)  # characters of a number that is read; what a longer one is, which nobody has
_MARK = re.compile(r"<<[^<>\n]{0,200}>>|####")  # of GSM8K's worked solutions
_REACH = 3  # steps in which a new number has to be reached: two may be idle, such as an introduction and a plan
_NAMED = {
    **{"half": 2, "twice": 2, "double": 2, "triple": 3, "thrice": 3, "third": 3, "quarter": 4, "dozen": 12},
    **{"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "week": 7, "day": 24, "hour": 60, "minute": 60, "year": 12},
}
_WORD = re.compile(r"[a-z]+")

Numbers = tuple[Fraction, ...]


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
    if wrong == len(steps) and _ends_with(steps[-1].text, answer[-1]):
        return Verdict(None)
    given = {*_numbers(item.problem.prompt), *_named(item.problem.prompt)}
    return Verdict(min(wrong, _leaves(steps, given, worked)) + 1)


def _ends_with(step: str, answer: Fraction) -> bool:
    """Whether that is what it boxes, or without a box one of its numbers."""
    boxes = _BOX.findall(step)
    return list(_numbers(boxes[-1])) == [answer] if boxes else answer in _numbers(step)


def _leaves(steps: Sequence[Step], given: set[Fraction], worked: str) -> int:
    """Index of the step in which a wrong response leaves the worked solution."""
    solution = set(_numbers(worked))
    known = given | solution | _ALWAYS
    to_reach = (solution - given - _ALWAYS) | _true_equations(worked)
    written = [set(_numbers(_LABEL.sub("", step.text))) for step in steps]
    strange = next((i for i, numbers in enumerate(written) if numbers - known), len(steps) - 1)
    last = -1
    for i, step in enumerate(steps[:strange]):
        if i - last > _REACH:
            break
        if reached := (written[i] | _true_equations(step.text)) & to_reach:
            to_reach, last = to_reach - reached, i
    return last + 1


def _true_equations(text: str) -> set[Fraction | Numbers]:
    """Each as its numbers, whatever their order."""
    return {tuple(sorted(_numbers(text[e.start : e.end]))) for e in equations(text) if e.holds}


def _numbers(text: str) -> Iterator[Fraction]:
    found = (token.text for token in tokens(text) if token.kind is Kind.NUMBER)
    return (Fraction(number) if len(number) <= _LONGEST else _STRANGE for number in found)


def _named(text: str) -> Iterator[Fraction]:
    return (Fraction(_NAMED[word]) for found in _WORD.findall(text.lower()) if (word := found.rstrip("s")) in _NAMED)
