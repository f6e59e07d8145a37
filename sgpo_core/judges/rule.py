"""The rule judge: exact where arithmetic decides, and blind elsewhere. No model, no cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from sgpo_core.chains import problems as chains
from sgpo_core.judges.base import Item
from sgpo_core.types import Judgment, Problem, Step, Verdict

_RUN = re.compile(r"[\d.+\-*/×÷= \t]+")  # what an equation of plain numbers is made of
_SIDE = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?(?:[ \t]*[-+*/×÷][ \t]*-?\d{1,15}(?:\.\d{1,15})?){0,20}")
_OPERAND, _OPERATOR = re.compile(r"\s*(-?\d+(?:\.\d+)?)"), re.compile(r"\s*([-+*/×÷])")
# What may stand around an equation: words and punctuation, not more mathematics ("2x", "50%", "2^", "1,", ")").
_BEFORE = re.compile(r"(?:^|\n|\$|[^\W\d_]{2}[ \t]|[:;,.!?][ \t])[ \t]*$")
_AFTER = re.compile(r"\$?[.,;:!?)]?(?:\s|$)(?![ \t]*[%\\^(])")
_CHAIN_STEP = re.compile(r"Step (\d{1,4}): (\d) \+ (\d) \+ (\d) = (\d{1,2})")
_CHAIN_ANSWER = re.compile(r"Answer: \\boxed\{(\d{1,20})\}")


def rule(items: Sequence[Item]) -> list[Judgment]:
    """`rule_judge` as a `Judge`."""
    return [Judgment(rule_judge(item.problem, item.steps, item.problem.reference)) for item in items]


def rule_judge(problem: Problem, steps: Sequence[Step], reference: str | None = None) -> Verdict:
    """Compares a `chains` response with the one right trace; elsewhere checks every equation between plain numbers.

    Outside of `chains` it sees wrong arithmetic only, not wrong reasoning: there it finds no error in most wrong
    responses, which credit counts as an abstention. Model text is parsed, never evaluated.
    """
    if not steps:
        return Verdict.abstain("empty response")
    operands = chains.operands(problem.prompt)
    if operands is not None:
        expected = chains.solve(*operands).lines
        wrong = (i for i, step in enumerate(steps) if i >= len(expected) or not _same_line(step.text, expected[i]))
    else:
        wrong = (i for i, step in enumerate(steps) if not arithmetic_holds(step.text))
    first = next(wrong, None)
    return Verdict(first_error_step=None if first is None else first + 1)


def is_exact(prompt: str) -> bool:
    """Whether the rule judge knows the right solution step by step, as it does for `chains`."""
    return chains.operands(prompt) is not None


def _same_line(written: str, expected: str) -> bool:
    pattern = _CHAIN_STEP if expected.startswith("Step") else _CHAIN_ANSWER
    mine, right = pattern.fullmatch(written.strip()), pattern.fullmatch(expected.strip())
    return mine is not None and right is not None and mine.groups() == right.groups()


def arithmetic_holds(text: str) -> bool:
    """False when the text contains an equation of plain numbers that is wrong ("2 + 3 = 6", "2 + 3 = 4 + 1 = 6").

    Exact (rational) arithmetic; a number with d decimals may be rounded at the d-th. An equation that may be part of a
    larger formula is passed over: calling a right step wrong costs more than missing a wrong one.
    """
    text = text[:100_000].replace("\u2212", "-")
    return all(_equation_holds(text, run.start(), run.end()) for run in _RUN.finditer(text) if "=" in run[0])


def _equation_holds(text: str, start: int, end: int) -> bool:
    end = start + len(text[start:end].rstrip(" \t."))
    if not _AFTER.match(text, end):
        return True
    sides = text[start:end].split("=")
    if not sides[0].strip():  # "x = 3 + 4 = 7": what x is, is no matter here
        sides = sides[1:]
    elif not _BEFORE.search(text[max(0, start - 3) : start + len(sides[0]) - len(sides[0].lstrip())]):
        return True
    if len(sides) < 2 or not all(_SIDE.fullmatch(side.strip()) for side in sides):
        return True
    values = [_evaluate(side) for side in sides]
    decimals = max(len(part.partition(".")[2]) for side in sides for part in re.findall(r"[\d.]+", side))
    tolerance = Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
    known = [v for v in values if v is not None]
    return len(known) < len(values) or max(known) - min(known) <= tolerance


def _evaluate(expression: str) -> Fraction | None:
    """Value of numbers joined by + - * /, the latter two binding closer; None for a division by zero."""
    total, term, op, position = Fraction(0), Fraction(0), "+", 0
    while operand := _OPERAND.match(expression, position):  # a "-" after an operator is a sign, after an operand not
        number = Fraction(operand[1])
        if op in "*×":
            term *= number
        elif op in "/÷":
            if number == 0:
                return None
            term /= number
        else:
            total, term = total + term, -number if op == "-" else number
        operator = _OPERATOR.match(expression, operand.end())
        if operator is None:
            return total + term
        op, position = operator[1], operator.end()
    return None
