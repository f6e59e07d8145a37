"""Equations of plain numbers in model text: where they are, and which of them are wrong.

Words, formulas and units may stand around an equation, and sides may follow each other ("2 * 3 = 6 = 12 / 2"). A side
that can't be read whole, and an equation that differs for a reason other than a slip (a conversion of units, a running
total, a whole part), is passed over: calling a right step wrong costs more than missing a wrong one. Each such reason
below was found in responses that people call right; docs/judges.md counts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from sgpo_core.judges.arithmetic import CHANGES_VALUE, MAX_TOKENS, Expression, Unreadable, read
from sgpo_core.judges.math_tokens import LINE, Kind, Token, tokens, words

MAX_TEXT = 100_000  # characters of a step; more are not read
_MARK = re.compile(r"<<([^<>\n]{1,200})>>")  # the calculator marks of GSM8K: 48/2 = <<48/2=24>>24
# In front of an expression these make it a part of something larger, or a name: "half of 20 + 5", "day 1 * 2".
_TAKES_MORE = CHANGES_VALUE | words(
    "and or by from than half twice double triple less over between sum difference product quotient root third "
    "day days week weeks month months year years hour step steps number page pages room grade group part case level "
    "round trip"
)
_ABOUT = words("approximately about around roughly nearly almost approx")
_CLOSE_ENOUGH = Fraction(1, 100)  # relative, of what is called approximate
_MONEY = words("cent cents penny pennies dime dimes nickel nickels quarter quarters")
_MEASURES = tuple(
    words(family)
    for family in (
        "second seconds sec minute minutes min mins hour hours hr hrs day days week weeks month months year years",
        "mm cm m km meter meters centimeter centimeters kilometer kilometers inch inches in foot feet ft yard yards "
        "mile miles",
        "g kg mg gram grams kilogram kilograms ounce ounces oz pound pounds lb lbs ton tons",
        "ml liter liters cup cups pint pints quart quarts gallon gallons",
    )
)
# Where numbers are not what they are elsewhere: remainders, other bases.
_OTHER_ARITHMETIC = re.compile(
    r"\\[pb]?mod\b|\bmod(?:ulo)?\b|≡|\\equiv\b|\bbase[ -]?(?:\$|\\\()?[0-9b]\b|[0-9]_\{?[0-9]"
)
# What denies an equation, behind it or in front of it.
_DENIED = re.compile(
    r"(?i)[^.\n=]{0,40}(?:\?|\bnot\b|n't\b|\bfalse\b|\bincorrect|\bwrong\b|\bcontradict|\bimpossible\b)"
)
_DOUBTED = re.compile(r"(?i)\b(?:not|n't|whether|suppose|assume|assuming|cannot|would|instead of)\b[^.\n=]{0,40}$")


@dataclass(frozen=True, slots=True)
class Equation:
    """Characters `start` to `end` (exclusive) of the text, whose two sides were read."""

    start: int
    end: int
    holds: bool


def equations(text: str) -> list[Equation]:
    """Those that can be read, in order; calculator marks (`<<48/2=24>>`) come last. Never raises; linear in time."""
    text = text[:MAX_TEXT]
    other_arithmetic = _OTHER_ARITHMETIC.search(text) is not None
    found = _of_text(_MARK.sub(lambda mark: " " * len(mark[0]), text))
    for mark in _MARK.finditer(text):
        found += [Equation(mark.start(1) + e.start, mark.start(1) + e.end, e.holds) for e in _of_text(mark[1])]
    return [e for e in found if e.holds or not (other_arithmetic or _denied(text, e))]


def _denied(text: str, equation: Equation) -> bool:
    before = text[max(0, equation.start - 60) : equation.start]
    return bool(_DENIED.match(text, equation.end) or _DOUBTED.search(before))


def _of_text(text: str) -> list[Equation]:
    found = tokens(text)
    ends = [i for i, token in enumerate(found) if token.kind is Kind.END]
    return [e for start, end in pairwise([-1, *ends, len(found)]) for e in _of_clause(found, start + 1, end)]


def _of_clause(found: Sequence[Token], start: int, end: int) -> Iterator[Equation]:
    """Equations between the tokens `start` and `end`, which no END parts."""
    signs = [i for i in range(start, end) if found[i].kind is Kind.EQUALS]
    for before, sign, after in zip([start - 1, *signs], signs, [*signs[1:], end], strict=False):
        left, right = _left(found, before + 1, sign), _right(found, sign + 1, after)
        if left is None or right is None:
            continue
        (begin, a), b = left, right
        if a.bare and b.bare:  # "0 = 5" is a contradiction that somebody arrives at, or "x = 5" without its x
            continue
        about = found[sign].text != "=" or found[sign + 1].text in _ABOUT
        remainder = _remainder(found[b.end : b.end + 6]) if a.quotient and b.bare else None
        holds = _equal(a, b, about) if remainder is None else _divides(a, b, remainder)
        if holds or remainder is not None or not _otherwise_meant(a, b):
            yield Equation(found[begin].start, found[b.end - 1].end, holds)


def _left(found: Sequence[Token], start: int, end: int) -> tuple[int, Expression] | None:
    """The expression that the tokens `start` to `end` end with, and the token it begins with; words may precede it."""
    begin = _beginning(found, start, end)
    if begin is None or any(token.kind is Kind.OPERATOR for token in found[start:begin]):  # "2 + 1 and the 3 + 4 = 10"
        return None
    try:
        side = read(found, begin, end)
    except Unreadable:
        return None
    if side.end != end:
        return None
    # "5 quarters = 5 * 25", "1/2 inch = 20 miles": a conversion; "Cost of 5 = 3 + 4": a name.
    quantity = side.operators <= 1 and side.quotient is not None and found[end - 1].kind is Kind.WORD
    named = side.bare and (bool(side.units) or begin > start)
    return None if named or (quantity and len(set(side.units)) == 1) else (begin, side)


def _beginning(found: Sequence[Token], start: int, end: int) -> int | None:
    """Where the last expression of the tokens `start` to `end` begins; None where it goes on further to the left."""
    depth, last = 0, max(start, end - MAX_TOKENS)
    for i in range(end - 1, last - 1, -1):
        token, behind = found[i], found[i + 1] if i + 1 < end else None
        if token.kind is Kind.CLOSE:
            depth += 1
        elif token.kind is Kind.OPEN:
            if depth == 0:
                return i + 1 if token.text == "(" and _may_open(found, i) else None
            depth -= 1
        elif depth == 0 and token.kind is Kind.OTHER:
            return None
        elif depth == 0 and token.kind is Kind.WORD and behind and _is_operand(behind):
            if token.text == "of":  # may be a multiplication, but not in "a total of 2 + 3"
                if i > last and found[i - 1].text == "total":
                    return i + 1
                continue
            called = behind.kind is Kind.OPEN and behind.joined  # f(2)
            another = token.text == "and" and start > 0 and found[start - 1].kind is Kind.EQUALS  # "... = 5 and 2 * 2"
            return None if called or (token.text in _TAKES_MORE and not another) else i + 1
    return start if depth == 0 and last == start and _may_begin(found, start) else None


def _is_operand(token: Token) -> bool:
    return token.kind in (Kind.NUMBER, Kind.OPEN, Kind.FRACTION)


def _may_open(found: Sequence[Token], i: int) -> bool:
    """Whether an equation may begin behind this parenthesis: "apples (2 + 3 = 5)", but not "4 * (2 + 3 = 5"."""
    before = found[i - 1] if i else None
    return before is None or (not found[i].joined and before.kind in (Kind.WORD, Kind.END, Kind.NUMBER))


def _may_begin(found: Sequence[Token], start: int) -> bool:
    """Whether the end before token `start` parts what is behind it from what is before it."""
    if start < 2 or found[start - 1].kind is not Kind.END:
        return True
    before, end, first = found[start - 2], found[start - 1], found[start]
    if end.text in ("\\]", "$$") and first.kind is Kind.OPERATOR:
        return False
    split = before.kind is first.kind is Kind.NUMBER and end.text in ",." and len(first.text) == 3  # "14, 400 / 80"
    return not (split or (before.kind is Kind.OPERATOR and end.text != LINE))


def _right(found: Sequence[Token], start: int, end: int) -> Expression | None:
    """The expression that the tokens `start` to `end` begin with; words may follow it."""
    while start < end and found[start].kind is Kind.WORD and found[start].text in _ABOUT:
        start += 1
    try:
        side = read(found, start, end)
    except Unreadable:
        return None
    if any(token.text == "of" for token in found[start : side.end]):  # "3/4 - 1/4 = 1/2 of the 150 people"
        return None
    behind = side.end
    if behind == end or found[behind].kind is Kind.CLOSE:
        return side
    if found[behind].kind is Kind.OPEN:  # "= 5 (because ...)"
        inside = next((i for i in range(behind, end) if found[i].kind in (Kind.WORD, Kind.CLOSE)), end - 1)
        remark = found[behind].text == "(" and not found[behind].joined and found[inside].kind is Kind.WORD
        return side if remark else None
    while behind < end and found[behind].kind is Kind.WORD:
        behind += 1
    goes_on = behind < end and found[behind].kind is Kind.OPERATOR
    return side if behind > side.end and found[side.end].text not in CHANGES_VALUE and not goes_on else None


def _divides(left: Expression, right: Expression, remainder: Fraction) -> bool:
    """Whether "17 / 5 = 3 with a remainder of 2"."""
    dividend, divisor = left.quotient or (Fraction(0), Fraction(0))
    return dividend == divisor * right.values[0] + remainder


def _equal(left: Expression, right: Expression, about: bool) -> bool:
    return any(
        abs(a - b) < _less_than(left, right, a, about, percent) or a == b
        for a in left.values
        for b, percent in zip(right.values, (len(right.values) == 2, False), strict=False)
    )


def _less_than(left: Expression, right: Expression, value: Fraction, about: bool, percent: bool) -> Fraction:
    """By how much the sides may not differ. A number that stands alone may be rounded or cut at its last decimal, a
    percentage at its last digit; an approximation, at its last digit or by 1 %."""
    allowed = [left.slack * abs(value), right.slack * abs(value)]
    unit = Fraction(1, 100) if percent else Fraction(1)
    allowed += [unit / 10**side.decimals for side in (left, right) if side.bare and (side.decimals or percent or about)]
    if decimals := max(left.decimals, right.decimals):
        allowed.append(Fraction(1, 2 * 10**decimals))
    return max(*allowed, _CLOSE_ENOUGH * abs(value) if about else Fraction(0))


def _remainder(behind: Sequence[Token]) -> Fraction | None:
    """Of "... with a remainder of 2" the 2."""
    written = [token.text for token in behind]
    if "remainder" not in written:
        return None
    rest = [token for token in behind[written.index("remainder") + 1 :] if token.text not in ("of", "is")]
    return Fraction(rest[0].text) if rest and rest[0].kind is Kind.NUMBER else None


def _otherwise_meant(left: Expression, right: Expression) -> bool:
    """Sides that differ without a slip."""
    a, b = left.values[0], right.values[0]
    running_total = right.operators > 0 and right.first in left.values  # "3 * 4 = 12 + 5 = 17"
    whole_part = left.quotient is not None and right.bare and right.decimals == 0 and abs(a - b) < 1  # "14 / 3 = 4"
    named = left.bare and len(left.values) != len(right.values)  # "48 = 100% + 20%": what 120 % are
    return running_total or whole_part or named or _converts({*left.units, *right.units})


def _converts(units: set[str]) -> bool:
    """Whether amounts of one measure are written in two units, or amounts of money in coins."""
    named = {part for unit in units for part in re.split(r"[/-]", unit) if part}
    return bool(named & _MONEY) or any(len({w.rstrip("s") for w in named & family}) > 1 for family in _MEASURES)
