"""Rational numbers as answers write them, read exactly: integers, decimals, powers of ten, fractions, percentages, with
or without a unit. They are compared here, since a maths library rounds to places behind the point: to it 1e-8 is 0.

Every expression is linear in the length of the text, which grader.py bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from sgpo_core.grading.answer_forms import TEX_SPACES, WRAPPED, trimmed, without_unit

_TOLERANCE = Fraction(1, 10**6)  # of the gold number, and never more than this itself

_THOUSANDS = re.compile(r"([1-9]\d{0,2}(?:(?:,|\{,\}|\\, ?|,?\\! ?| )\d{3})+)(\.\d+)?", re.ASCII)
_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(_DECIMAL, re.ASCII)
_POWER = re.compile(
    rf"(?:({_DECIMAL}) ?(?:\\times|\\cdot|\*) ?)?10 ?\^ ?(?:\{{ ?([+-]?\d{{1,4}}) ?\}}|(\d))"
    rf"|({_DECIMAL})[eE]([+-]?\d{{1,4}})",
    re.ASCII,
)
_PART = rf"\{{ ?([+-]?{_DECIMAL}) ?\}}"
_FRACTION = re.compile(
    rf"(\d+)? ?\\[dtc]?frac ?(?:{_PART}|(\d)) ?(?:{_PART}|(\d))|({_DECIMAL}) ?/ ?({_DECIMAL})",
    re.ASCII,
)
_UNIT_BEGINS = re.compile(r"\\(?:text|textrm|mathrm|mbox|operatorname)\s*\{")
_UNITS = re.compile(
    r"(?:(?:\\[,;:! ]|\s|[~/*]|\\cdot)*\\(?:text|textrm|mathrm|mbox|operatorname)\s*\{([^{}\d]*)\}"
    r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?)+"
)
_NO_UNIT = re.compile(r"\b(?:or|and|than|more|less|not|least|most|to|plus|minus|times)\b|[,;+=<>%]")
_DEGREES = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*[CF]?$")
_PERCENT = re.compile(r"\s*\\?%$")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A rational number. `value` is what stands before a percent sign; `unit` is what stands around, as text;
    `divided` where a division is written out, as in 10/2."""

    value: Fraction
    percent: bool = False
    divided: bool = False
    unit: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is an integer and written as one (5, 5.0): of a gold answer 10/2 nobody can ask for more."""
        return self.value.denominator == 1 and not self.percent and not self.divided


def numeral(text: str) -> Numeral | None:
    """The number that the whole of a canonical text is; None for everything else, and for more than one number."""
    text, unit = _without_units(text.strip())
    percent = bool(_PERCENT.search(text[-4:]))
    text = text.rstrip("% \\") if percent else text
    if wrapped := WRAPPED.fullmatch(text):
        text = wrapped[1]
    if text[:1] == "{" and text[-1:] == "}" and not set("{}") & set(text[1:-1]):
        text = text[1:-1]
    text = text.strip()
    negative = text[:1] == "-"
    digits = text[text[:1] in ("+", "-") :].strip().removeprefix(r"\$").strip()
    found = _read(digits)
    if found is None:
        return None
    value, divided = found
    return Numeral(-value if negative else value, percent, divided, unit)


def same_number(gold: Numeral, given: Numeral) -> bool:
    """Whether both are equal: exactly, if the gold one is an integer, else to a millionth of it (and at most a
    millionth), since 1/3 has no decimal that ends. 50 % is 50 and 0.5, whichever side has the sign; 50 is not 0.5."""
    shares = [Fraction(1)]
    if gold.percent != given.percent:
        shares.append(Fraction(1, 100) if given.percent else Fraction(100))
    tolerance = Fraction(0) if gold.value.denominator == 1 else _TOLERANCE * min(Fraction(1), abs(gold.value))
    return any(abs(gold.value - given.value * share) <= tolerance for share in shares)


def _without_units(text: str) -> tuple[str, str]:
    """The text without a unit in a font or in plain words behind it, and without the sign of degrees; the unit."""
    begins = _UNIT_BEGINS.search(text)
    if begins and begins.start():
        before = text[: begins.start()]
        behind = text[begins.start() :]
        if not _UNITS.fullmatch(behind) or _NO_UNIT.search(behind):
            return text, ""
        return _DEGREES.sub("", trimmed(before)), behind
    bare = without_unit(text)
    money = r"\$" if text[:3].lstrip("+-").startswith(r"\$") else ""
    return _DEGREES.sub("", trimmed(bare)), text[len(bare) :].strip() or money


def _read(digits: str) -> tuple[Fraction, bool] | None:
    """Value, and whether it is written as a division."""
    if thousands := _THOUSANDS.fullmatch(digits):
        return Fraction(re.sub(r"\D", "", thousands[1]) + (thousands[2] or "")), False
    flat = " ".join(TEX_SPACES.sub(" ", digits).split())
    if _PLAIN.fullmatch(flat):
        return Fraction(flat), False
    if power := _POWER.fullmatch(flat):
        mantissa, exponent = power[1] or power[4] or "1", int(power[2] or power[3] or power[5])
        return Fraction(mantissa) * Fraction(10) ** exponent, False
    if bar := _FRACTION.fullmatch(flat):
        above, below = Fraction(bar[2] or bar[3] or bar[6]), Fraction(bar[4] or bar[5] or bar[7])
        mixed = bar[1] is not None
        if not below or (mixed and (above < 0 or below < 0)):
            return None
        return above / below + int(bar[1] or 0), True
    return None
