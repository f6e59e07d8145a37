"""The value of an expression of plain numbers: a recursive-descent parser over exact fractions, bounded in depth, in
length and in the size of numbers. Text is never evaluated.

    sum     = product (("+" | "-") product)*
    product = ["-"] power (("*" | "/" | "of" | nothing, before a parenthesis) ["-"] power)*
    power   = operand ["!"] ["%"] ["^" integer] [unit]
    operand = number | "(" sum ")" | \\frac{sum}{sum}
    unit    = a few words

What can be read in two ways is not read: `3 / 1/4`, `1/2(3 + 1)`, `80 - 20%`, `2 1/2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import factorial

from sgpo_core.judges.math_tokens import Kind, Token, words

MAX_TOKENS = 80  # of one side of an equation
_MAX_DEPTH, _MAX_DIGITS, _MAX_BITS, _MAX_FACTORIAL, _MAX_UNIT = 8, 15, 2048, 20, 4
_LONG = 3  # decimals from which a number is taken to have been rounded; money has two
# Words that a unit does not go beyond, and words behind a number that change its value.
_NO_UNIT = words(
    "and or so then is are was were of which that the a an to from by than we he she they it but as if since because "
    "with for in on at into"
)
CHANGES_VALUE = words(
    "hundred hundreds thousand thousands million millions billion billions trillion dozen dozens k percent squared "
    "cubed factorial pi times plus minus divided multiplied added subtracted mod modulo of choose half halves third "
    "thirds fourth fourths quarter quarters fifth fifths tenth tenths"
)


class Unreadable(Exception):
    """Not an expression of plain numbers, or one that can be read in two ways."""


@dataclass(frozen=True, slots=True)
class Expression:
    """`values`: its value; where it has a percent sign two, with % as 1/100 and as a mere unit, for people write both
    "5/20 = 25%" and "5/20 * 100 = 25%". `end`: index of the token behind it. `first`: the value of its first operand.
    `decimals`: the most that one of its numbers has. `slack`: relative error of the value, if its long decimals are
    rounded. `quotient`: dividend and divisor where it is one division. `units`: words behind its numbers."""

    values: tuple[Fraction, ...]
    end: int
    first: Fraction
    operators: int
    decimals: int
    slack: Fraction
    quotient: tuple[Fraction, Fraction] | None
    units: tuple[str, ...]

    @property
    def bare(self) -> bool:
        """A number alone."""
        return self.operators == 0


def read(tokens: Sequence[Token], start: int, end: int) -> Expression:
    """The longest expression that begins at token `start` and ends before `end`. Raises Unreadable."""
    parsers = [_Parser(tokens, start, end, Fraction(1, 100))]
    values = [parsers[0].sum()]
    if parsers[0].percents:
        parsers.append(_Parser(tokens, start, end, Fraction(1)))
        values.append(parsers[1].sum())
    p = parsers[0]
    return Expression(
        tuple(values), p.at, p.first or Fraction(0), p.operators, p.decimals, p.slack, p.quotient, tuple(p.units)
    )


class _Parser:
    """Position and findings of one reading. A value is a fraction and whether it is a percentage."""

    def __init__(self, tokens: Sequence[Token], start: int, end: int, percent: Fraction) -> None:
        self._tokens, self._end, self._percent = tokens, end, percent
        self._stop = min(end, start + MAX_TOKENS)
        self.at, self._depth = start, 0
        self.first: Fraction | None = None
        self.quotient: tuple[Fraction, Fraction] | None = None
        self.operators = self.decimals = self.percents = 0
        self.slack = Fraction(0)
        self.units: list[str] = []

    def _next(self, *kinds: Kind, text: str = "") -> Token | None:
        """The next token, if it is of one of the kinds (and one of the characters of `text`)."""
        token = self._tokens[self.at] if self.at < self._stop else None
        return token if token and token.kind in kinds and (not text or token.text in text) else None

    def _take(self, *kinds: Kind, text: str = "") -> Token | None:
        if token := self._next(*kinds, text=text):
            self.at += 1
        return token

    def sum(self) -> Fraction:
        total, percentage = self._product()
        while operator := self._take(Kind.OPERATOR, text="+-"):
            self.operators += 1
            term, other = self._product()
            self.quotient = None
            if percentage != other:  # "80 - 20%": of what?
                raise Unreadable
            total = total + term if operator.text == "+" else total - term
        return total

    def _product(self) -> tuple[Fraction, bool]:
        value, percentage = self._signed_power()
        divided = False
        while operator := self._product_operator(percentage or divided):
            self.operators += 1
            if divided and operator != "*":  # "3 / 1/4", "1/2(3 + 1)"
                raise Unreadable
            other, other_percentage = self._signed_power()
            if operator == "/":
                if other == 0:
                    raise Unreadable
                divided = True
                self.quotient = (value, other)
                value, percentage = value / other, percentage and not other_percentage
            else:
                self.quotient = None
                value, percentage = value * other, percentage != other_percentage
        return value, percentage

    def _product_operator(self, part: bool) -> str:
        """Empty: none; "(": left out, before a parenthesis. `part`: what stands before can be a part *of* something."""
        if token := self._take(Kind.OPERATOR, text="*/"):
            return token.text
        token, before = self._next(Kind.WORD, Kind.OPEN), self._tokens[self.at - 1]
        if token and token.text == "of" and part:
            self.at += 1
            return "*"
        follows = before.kind in (Kind.NUMBER, Kind.CLOSE)
        return "(" if token and token.kind is Kind.OPEN and token.joined and token.text in "([" and follows else ""

    def _signed_power(self) -> tuple[Fraction, bool]:
        negative = self._take(Kind.OPERATOR, text="-")
        value, percentage = self._power()
        return (-value if negative else value), percentage

    def _power(self) -> tuple[Fraction, bool]:
        value, percentage = self._operand(), False
        if self._take(Kind.FACTORIAL):
            if value.denominator != 1 or not 0 <= value <= _MAX_FACTORIAL:
                raise Unreadable
            value, self.operators = Fraction(factorial(int(value))), self.operators + 1
        if self._take(Kind.PERCENT):
            value, percentage, self.percents = value * self._percent, True, self.percents + 1
        if self._take(Kind.POWER):
            value, self.operators = self._raised(value), self.operators + 1
        if self.first is None:
            self.first = value
        self._unit()
        return value, percentage

    def _raised(self, base: Fraction) -> Fraction:
        exponent = self._number() if self._next(Kind.NUMBER) else self._group()
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) * size > _MAX_BITS or (base == 0 and exponent <= 0):
            raise Unreadable
        self.slack *= abs(exponent)
        return Fraction(base ** int(exponent))

    def _unit(self) -> None:
        """Words behind an operand are its unit where an operator or the end of the side comes next."""
        behind = self.at
        while behind < self._stop and self._is_unit(self._tokens[behind]):
            behind += 1
        written = [token.text for token in self._tokens[self.at : behind]]
        if not written:
            return
        if written[0] in CHANGES_VALUE:
            raise Unreadable
        ends = behind == self._end or self._tokens[behind].kind in (Kind.OPERATOR, Kind.CLOSE)
        if ends and len(written) <= _MAX_UNIT:
            self.at = behind
        self.units += written[:_MAX_UNIT]

    @staticmethod
    def _is_unit(token: Token) -> bool:
        return token.kind is Kind.WORD and token.text not in _NO_UNIT

    def _operand(self) -> Fraction:
        if self._next(Kind.OPEN):
            return self._group()
        if self._take(Kind.FRACTION):
            self.operators += 1
            over, under = self._digits() if self._next(Kind.NUMBER) else (self._group(), self._group())
            if under == 0:
                raise Unreadable
            self.quotient = (over, under)
            return over / under
        value = self._number()
        if self._next(Kind.NUMBER, Kind.FRACTION):  # "2 1/2", "2\frac{1}{2}"
            raise Unreadable
        return value

    def _group(self) -> Fraction:
        self._depth += 1
        if self._depth > _MAX_DEPTH or not self._take(Kind.OPEN):
            raise Unreadable
        value = self.sum()
        if not self._take(Kind.CLOSE):
            raise Unreadable
        self._depth -= 1
        return value

    def _digits(self) -> tuple[Fraction, Fraction]:
        """Of "\\frac12"."""
        token = self._take(Kind.NUMBER)
        if token is None or len(token.text) != 2 or "." in token.text:
            raise Unreadable
        return Fraction(token.text[0]), Fraction(token.text[1])

    def _number(self) -> Fraction:
        token = self._take(Kind.NUMBER)
        if token is None or len(token.text) > _MAX_DIGITS + 1:
            raise Unreadable
        decimals, value = len(token.text.partition(".")[2]), Fraction(f"0{token.text}")
        self.decimals = max(self.decimals, decimals)
        if decimals >= _LONG and value:
            self.slack += Fraction(1, 2 * 10**decimals) / value
        return value
