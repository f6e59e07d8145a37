"""Worked solutions with a known first error, because it was put there: what a judge of word problems is trained on.

GSM8K's calculator marks say which part of a line is the calculation and which number is its result:

    Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    Natalia sold 48+24 = <<48+24=72>>72 clips altogether.

An error is put into one line; the lines after it go on with the wrong number, as a policy would.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from sgpo_core.config.judge_training import CorruptionSettings
from sgpo_core.data.worked_solutions import last_line, without_marks
from sgpo_core.judges.arithmetic import Unreadable, read
from sgpo_core.judges.base import Item
from sgpo_core.judges.math_tokens import tokens
from sgpo_core.judges.training_examples import LabeledItem
from sgpo_core.types import Problem, Step

_LINE = re.compile(r"(?P<before>[^\n]*?)<<(?P<expression>[^<>=\n]{1,80})=(?P<result>[\d.]{1,12})>>(?P<after>[^\n]*)")
_NUMBER = re.compile(r"(?<![\d.,])\d+(?:\.\d+)?(?![\d]|[.,]\d)")
_OPERATION = re.compile(r"(?<=\d)(\s*)([+\-*/x×÷])(\s*\$?)(?=\d)")
_OTHER = {"+": "-", "-": "+", "*": "/", "x": "/", "×": "÷", "/": "*", "÷": "×"}
_SIGN = {"x": "*", "×": "*", "÷": "/"}  # as the marks write it
_INTRODUCTIONS = ("Let's solve this step by step.", "We go through the problem one step at a time.")
_LABELS: tuple[str, ...] = ("Step {}: ", "{}. ")
_LABELED, _INTRODUCED = 0.35, 0.15  # shares of the solutions, for a judge is not to depend on their form

# Lines, the index of the first wrong one (None: there is none), how many of its characters are still right.
Solution = tuple[list[str], int | None, int]


class SolutionError(StrEnum):
    WRONG_RESULT = "wrong-result"  # 48/2 = 26
    WRONG_OPERAND = "wrong-operand"  # another number than the problem's, calculated rightly
    WRONG_OPERATION = "wrong-operation"  # 48*2 = 96
    FOREIGN_STEP = "foreign-step"  # a true line about another problem
    STOPS_EARLY = "stops-early"  # a number on the way is given as the answer
    WRONG_ANSWER = "wrong-answer"  # right steps, another answer


@dataclass(frozen=True, slots=True)
class Line:
    """A line with a calculation; of one without, `expression` and `result` are empty."""

    before: str
    expression: str = ""
    result: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        return self.before + self.result + self.after


def lines_of(problem: Problem) -> list[Line]:
    """The lines of a worked solution, without its answer; none where it has no calculator marks."""
    read_lines = [_read(text) for text in (problem.reference or "").split("\n") if text and not text.startswith("####")]
    return read_lines if any(line.expression for line in read_lines) else []


def solution_example(rng: random.Random, problem: Problem, donor: Problem, settings: CorruptionSettings) -> LabeledItem:
    """The worked solution of a problem that has `lines_of`, right or with an error; `donor` is another problem, whose
    line may come in. The kind of error is drawn by the weights among those that this solution can have."""
    right = lines_of(problem)
    wrong = None if rng.random() < settings.right else _wrong(rng, right, problem, donor, settings)
    return _labeled(rng, problem, wrong or ([*(line.text for line in right), last_line(problem)], None, 0))


def _wrong(
    rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem, settings: CorruptionSettings
) -> Solution | None:
    """None where every kind of error that the solution can have has a weight of 0."""
    weights = {error: float(getattr(settings, error.name.lower())) for error in SolutionError}
    while sum(weights.values()) > 0:
        [error] = rng.choices(list(weights), list(weights.values()))
        if found := _MAKE[error](rng, right, problem, donor):
            return found
        del weights[error]
    return None


def _read(text: str) -> Line:
    match = _LINE.fullmatch(text)
    if match is None or not match["after"].lstrip().startswith(match["result"]):
        return Line(without_marks(text))
    blanks, after = match["after"][: -len(match["after"].lstrip())], match["after"].lstrip()
    return Line(match["before"] + blanks, match["expression"], match["result"], after.removeprefix(match["result"]))


def _wrong_result(rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem) -> Solution | None:
    at = _calculation(rng, right)
    wrong = replace(right[at], result=misspelt(right[at].result, rng))
    return _continued(right, at, wrong, problem)


def _wrong_operand(rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem) -> Solution | None:
    at = _calculation(rng, right)
    line = right[at]
    single = [n for n in _NUMBER.findall(line.before) if _once(n, line.before) and _once(n, line.expression)]
    if not single:
        return None
    old = rng.choice(single)
    others = sorted({n for n in _NUMBER.findall(problem.prompt) if n not in (old, line.result)})
    new = rng.choice(others) if others and rng.random() < 0.7 else misspelt(old, rng)
    wrong = _recalculated(line, {old: new})
    return _continued(right, at, wrong, problem) if wrong and wrong.result != line.result else None


def _wrong_operation(rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem) -> Solution | None:
    at = _calculation(rng, right)
    line = right[at]
    written, marked = list(_OPERATION.finditer(line.before)), list(_OPERATION.finditer(line.expression))
    if len(written) != 1 or len(marked) != 1:
        return None
    [sign], [mark] = written, marked
    new = _OTHER[sign[2]]
    expression = line.expression[: mark.start(2)] + _SIGN.get(new, new) + line.expression[mark.end(2) :]
    result = _calculated(expression)
    if result is None or result == line.result:
        return None
    before = line.before[: sign.start(2)] + new + line.before[sign.end(2) :]
    return _continued(right, at, Line(before, expression, result, line.after), problem)


def _foreign_step(rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem) -> Solution | None:
    there = [line.text for line in lines_of(donor) if line.expression]
    if not there or donor.prompt == problem.prompt:
        return None
    at = rng.randint(0, len(right))
    lines = [line.text for line in right] + [last_line(problem)]
    return [*lines[:at], rng.choice(there), *lines[at:]], at, 0


def _stops_early(rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem) -> Solution | None:
    ends = [i for i, line in enumerate(right[:-1]) if line.result and line.result != problem.answer]
    if not ends:
        return None
    at = rng.choice(ends)
    return _with_answer([line.text for line in right[: at + 1]], problem, right[at].result)


def _wrong_answer(rng: random.Random, right: Sequence[Line], problem: Problem, donor: Problem) -> Solution | None:
    if not _NUMBER.fullmatch(problem.answer):
        return None
    return _with_answer([line.text for line in right], problem, misspelt(problem.answer, rng))


_MAKE: dict[SolutionError, Callable[[random.Random, Sequence[Line], Problem, Problem], Solution | None]] = {
    SolutionError.WRONG_RESULT: _wrong_result,
    SolutionError.WRONG_OPERAND: _wrong_operand,
    SolutionError.WRONG_OPERATION: _wrong_operation,
    SolutionError.FOREIGN_STEP: _foreign_step,
    SolutionError.STOPS_EARLY: _stops_early,
    SolutionError.WRONG_ANSWER: _wrong_answer,
}


def misspelt(number: str, rng: random.Random) -> str:
    """Another number that somebody may write in its place: a digit is another one, a zero too many or too few, or it
    is off by one, two or ten."""
    found = {f"{number}0"} if "." not in number else set[str]()
    if number.endswith("0") and len(number) > 1 and "." not in number:
        found.add(number[:-1])
    if number.isdecimal():
        found |= {str(int(number) + off) for off in (-10, -2, -1, 1, 2, 10) if int(number) + off > 0}
    at = rng.choice([i for i, sign in enumerate(number) if sign.isdecimal()])
    digits = [digit for digit in "0123456789" if digit != number[at] and (digit != "0" or at > 0)]
    found |= {number[:at] + digit + number[at + 1 :] for digit in rng.sample(digits, 3)}
    return rng.choice(sorted(found))


def _calculation(rng: random.Random, lines: Sequence[Line]) -> int:
    return rng.choice([i for i, line in enumerate(lines) if line.expression])


def _continued(right: Sequence[Line], at: int, wrong: Line, problem: Problem) -> Solution:
    """The solution with a wrong line at `at`, whose result the lines behind it go on with. A number that the problem
    gives is not taken for the result."""
    given = set(_NUMBER.findall(problem.prompt))
    changed = {right[at].result: wrong.result} if right[at].result not in given else {}
    lines = [line.text for line in right[:at]] + [wrong.text]
    for line in right[at + 1 :]:
        other = _recalculated(line, changed) if line.expression else Line(_replaced(line.before, changed))
        other = other or line
        if other.result != line.result:
            changed[line.result] = other.result
        lines.append(other.text)
    answer = changed.get(problem.answer, problem.answer) if at + 1 < len(right) else wrong.result
    return [*lines, last_line(replace(problem, answer=answer))], at, _same(right[at].text, wrong.text)


def _recalculated(line: Line, changed: Mapping[str, str]) -> Line | None:
    """The line with other numbers and what follows from them; None where that can't be calculated."""
    expression = _replaced(line.expression, changed)
    result = line.result if expression == line.expression else _calculated(expression)
    if result is None:
        return None
    return Line(_replaced(line.before, changed), expression, result, _replaced(line.after, changed))


def _calculated(expression: str) -> str | None:
    """The value as people write it: with two decimals at most."""
    found = tokens(expression)
    try:
        side = read(found, 0, len(found))
    except Unreadable:
        return None
    if side.end != len(found) or len(side.values) != 1:
        return None
    hundredths = round(side.values[0] * 100)
    value = Fraction(hundredths, 100)
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.2f}".rstrip("0")


def _replaced(text: str, changed: Mapping[str, str]) -> str:
    return _NUMBER.sub(lambda match: changed.get(match[0], match[0]), text)


def _once(number: str, text: str) -> bool:
    return _NUMBER.findall(text).count(number) == 1


def _with_answer(lines: list[str], problem: Problem, answer: str) -> Solution:
    right, wrong = last_line(problem), last_line(replace(problem, answer=answer))
    return [*lines, wrong], len(lines), _same(right, wrong)


def _same(right: str, wrong: str) -> int:
    """How many characters both begin with."""
    return next((i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b), min(len(right), len(wrong)))


def _labeled(rng: random.Random, problem: Problem, solution: Solution) -> LabeledItem:
    """A step a line, some solutions with labels or an introduction."""
    lines, wrong, still_right = solution
    if rng.random() < _INTRODUCED:
        lines, wrong = [rng.choice(_INTRODUCTIONS), *lines], None if wrong is None else wrong + 1
    if rng.random() < _LABELED:
        label = rng.choice(_LABELS)
        still_right += len(label.format(wrong + 1)) if wrong is not None and still_right else 0
        lines = [label.format(number) + line for number, line in enumerate(lines, 1)]
    steps, start = list[Step](), 0
    for number, line in enumerate(lines, 1):
        text = line if number == len(lines) else f"{line}\n"
        steps.append(Step(start, start + len(text), text))
        start += len(text)
    item = Item(problem, tuple(steps))
    return LabeledItem(item, None) if wrong is None else LabeledItem(item, wrong + 1, still_right)
