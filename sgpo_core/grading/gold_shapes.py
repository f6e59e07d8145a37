"""What a gold answer is made of: numbers and their units, lists, brackets, matrices. `rewritings` and `near_misses` are
built on it; the grader is not, so that one does not repeat the mistakes of the other.

It reads gold answers of data sets, never what a model wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Form = Literal["integer", "thousands", "decimal", "e-notation", "fraction", "mixed"]
Around = Literal["", "unit", "degrees", "percent", "money"]

_FRACTION = r"\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))"
_FORMS: dict[Form, re.Pattern[str]] = {
    "integer": re.compile(r"\d+"),
    "thousands": re.compile(r"[1-9]\d{0,2}(?:(?:,|\{,\}|\\, ?|,?\\! ?)\d{3})+"),
    "decimal": re.compile(r"\d*\.\d+"),
    "e-notation": re.compile(r"(\d+(?:\.\d+)?)e(-?\d+)"),
    "fraction": re.compile(rf"{_FRACTION}|(\d+)/(\d+)"),
    "mixed": re.compile(rf"(\d+)\s*{_FRACTION}"),
}
_UNIT = re.compile(r"(.*[\d}])(\s*\\(?:text|mbox|mathrm)\{\s*[a-zA-Z]+\s*\}(?:\^\{?\d\}?)?)")
_DEGREES = re.compile(r"(.*[\d}])(\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\text\{\s*degrees\s*\}))")
_PERCENT = re.compile(r"(.*[\d}])(\s*\\?%)")
_OPENING = {"(": "(", "[": "[", r"\{": "{", r"\left(": "(", r"\left[": "[", r"\left\{": "{"}
_CLOSING = {")": ")", "]": "]", r"\}": "}", r"\right)": ")", r"\right]": "]", r"\right\}": "}"}
_TOKEN = re.compile(r"\\(?:left|right)\s*(?:\\[{}]|[()\[\]])|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_MATRIX = re.compile(r"(\\begin\{(\w*matrix)\}\s*)(.*?)(\s*\\end\{\2\})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Number:
    """A rational number as a gold answer writes it. `text` is what was read, `value` is exact."""

    text: str
    form: Form
    value: Fraction


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what stands around it: `before` (a dollar sign) and `after` (a unit, degrees, percent)."""

    number: Number
    around: Around = ""
    before: str = ""
    after: str = ""


def body(gold: str) -> str | None:
    """The gold answer without dollars. None where words stand outside of them, or where one is missing."""
    text = gold.strip()
    outside = text.replace(r"\$", "").split("$")
    if len(outside) == 1:
        return text
    around = re.sub(r"\\(?:text\{\s*)?|[,.\s]|and|or", "", "".join(outside[::2]))
    if len(outside) % 2 == 0 or around:
        return None
    words = {"and": r" \text{ and } ", "or": r" \text{ or } "}
    parts = [words.get(part.strip(), part) if i % 2 == 0 else part for i, part in enumerate(text.split("$"))]
    return "".join(parts).strip() if r"\$" not in text else None


def number(text: str) -> Number | None:
    """The number that the whole text is, with or without a sign."""
    text = text.strip()
    negative, digits = text.startswith("-"), text.lstrip("+-").strip()
    if len(text) - len(text.lstrip("+-")) > 1:
        return None
    for form, pattern in _FORMS.items():
        if match := pattern.fullmatch(digits):
            groups = [group for group in match.groups() if group]
            value = _value(form, digits, groups)
            return Number(text, form, -value if negative else value) if value is not None else None
    return None


def _value(form: Form, digits: str, groups: list[str]) -> Fraction | None:
    match form:
        case "integer" | "decimal":
            return Fraction(digits)
        case "thousands":
            return Fraction(re.sub(r"\D", "", digits))
        case "e-notation":
            return Fraction(groups[0]) * Fraction(10) ** int(groups[1])
        case _:
            *whole, above, below = map(int, groups)
            return Fraction(above, below) + sum(whole) if below else None


def quantity(text: str) -> Quantity | None:
    """The number that a text is, with at most one thing around it."""
    if plain := number(text):
        return Quantity(plain)
    if text.startswith(r"\$") and (amount := number(text[2:])):
        return Quantity(amount, "money", r"\$")
    patterns: dict[Around, re.Pattern[str]] = {"degrees": _DEGREES, "percent": _PERCENT, "unit": _UNIT}
    for around, pattern in patterns.items():
        if (match := pattern.fullmatch(text)) and (amount := number(match[1])):
            return Quantity(amount, around, "", match[2])
    return None


def enclosed(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, inside, closing bracket, where one pair holds the whole text; the two may be of two kinds."""
    tokens = [token[0] for token in _TOKEN.finditer(text.strip())]
    if not tokens or _plain(tokens[0]) not in _OPENING or _plain(tokens[-1]) not in _CLOSING:
        return None
    depth = 0
    for i, token in enumerate(tokens):
        depth += (_plain(token) in _OPENING) - (_plain(token) in _CLOSING)
        if depth == 0:
            inner = "".join(tokens[1:-1])
            return (tokens[0], inner, tokens[-1]) if i == len(tokens) - 1 else None
    return None


def bracket(token: str) -> str:
    """The bare bracket of `\\left[`, `\\{`, ...: one of ( [ { ) ] }."""
    return (_OPENING | _CLOSING)[_plain(token)]


def elements(text: str, at: str = ",") -> list[str]:
    """The parts between the commas (or between other tokens) that stand in no bracket, stripped."""
    parts, depth = [""], 0
    for token in (found[0] for found in _TOKEN.finditer(text)):
        depth += (_plain(token) in _OPENING or token == "{") - (_plain(token) in _CLOSING or token == "}")
        if token == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def pieces(text: str) -> list[str]:
    """Separators and elements in turn, a separator first and last: `(1,2)` is `(`, `1`, `,`, `2`, `)`. Joined, they
    are the text but for spaces. What has no elements is one element itself."""
    if number(text):
        return ["", text.strip(), ""]
    if matrix := _MATRIX.fullmatch(text.strip()):
        cells = re.split(r"(\s*(?:&|\\\\)\s*)", matrix[3])
        return [matrix[1], *cells, matrix[4]]
    for at in (r"\cup", ","):
        if len(parts := elements(text, at)) > 1:
            joined = ["", *pieces(parts[0])[1:]]
            joined[0] = pieces(parts[0])[0]
            for part in parts[1:]:
                first, *rest = pieces(part)
                joined[-1] += (" \\cup " if at != "," else ",") + first
                joined += rest
            return joined
    if (brackets := enclosed(text)) and (bracket(brackets[0]) == "{" or len(elements(brackets[1])) > 1):
        first, *middle, last = _inside(brackets[1])
        return [brackets[0] + first, *middle, last + brackets[2]]
    return ["", text.strip(), ""]


def rows(text: str) -> tuple[str, list[str], str] | None:
    """Beginning, rows and end of a matrix."""
    matrix = _MATRIX.fullmatch(text.strip())
    return (matrix[1], re.split(r"\s*\\\\\s*", matrix[3]), matrix[4]) if matrix else None


def _inside(text: str) -> list[str]:
    """Of brackets: here `312,123` is two numbers and no thousands."""
    first, *others = elements(text)
    found = pieces(first)
    for other in others:
        opening, *rest = pieces(other)
        found[-1] += "," + opening
        found += rest
    return found


def _plain(token: str) -> str:
    return re.sub(r"(\\left|\\right)\s+", r"\1", token)
