"""Judges: who finds the first wrong step of a response. Here: the rule judge, exact where arithmetic decides.

A judge is a callable `judge(problem, steps, reference) -> Verdict`. It need not be able to solve the problem.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from sgpo_core import chains
from sgpo_core.types import Problem, Step, Verdict

_NUMBER = r"-?\d{1,15}(?:\.\d{1,15})?"
# "3 + 4 * 2 = 11" in running text; the left side starts at a number and not inside a word, a variable or a longer sum.
_EQUATION = re.compile(
    rf"(?<![\w.^*/+=-])(?P<left>{_NUMBER}(?:\s?[-+*/×÷]\s?{_NUMBER}){{1,20}})\s?=\s?(?P<right>{_NUMBER})(?![\w.,^/%*×÷+-])"
)
_OPERAND, _OPERATOR = re.compile(rf"\s*({_NUMBER})"), re.compile(r"\s*([-+*/×÷])")
_CHAIN_STEP = re.compile(r"Step (\d{1,4}): (\d) \+ (\d) \+ (\d) = (\d{1,2})")
_CHAIN_ANSWER = re.compile(r"Answer: \\boxed\{(\d{1,20})\}")


class Judge(Protocol):
    """Finds the first wrong step. Raises nothing for bad model output: an unusable response is an abstention."""

    def __call__(self, problem: Problem, steps: Sequence[Step], reference: str | None) -> Verdict: ...


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


def _same_line(written: str, expected: str) -> bool:
    pattern = _CHAIN_STEP if expected.startswith("Step") else _CHAIN_ANSWER
    mine, right = pattern.fullmatch(written.strip()), pattern.fullmatch(expected.strip())
    return mine is not None and right is not None and mine.groups() == right.groups()


def arithmetic_holds(text: str) -> bool:
    """False when the text contains an equation of plain numbers that is wrong. Exact (rational) arithmetic; a right
    side with d decimals may be rounded at the d-th."""
    for match in _EQUATION.finditer(text[:100_000]):
        value = _evaluate(match["left"])
        right = match["right"]
        decimals = len(right.partition(".")[2])
        tolerance = Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
        if value is not None and abs(value - Fraction(right)) > tolerance:
            return False
    return True


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
