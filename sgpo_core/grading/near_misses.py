"""Answers that look much like a gold one and are wrong, by kind. Each is only made where it is certain to differ.

Left out as uncertain: another digit in an exponent, an index or beside a variable (it may cancel or not matter); an
element more in a list that names one twice; brackets of `(0,1)`, which may be a point; golds with words between
formulas. Restated problems (2+3 for 5) are made for rational numbers: an expression is allowed to stay a sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from sgpo_core.grading.gold_shapes import (
    Number,
    body,
    bracket,
    elements,
    enclosed,
    number,
    pieces,
    quantity,
    rows,
)
from sgpo_core.grading.number_forms import decimal, fraction
from sgpo_core.grading.rewritings import Variant

_MAX_DIGITS = 5  # of a decimal whose last digit is changed: the grader compares six
_LETTER = re.compile(r"(?:\\text\{\(|\()?([A-K])(?:\)\}|\))?")
_WORD = re.compile(r"\\text\{([a-zA-Z ]+)\}")
_SUM = re.compile(r"(?<=[\w)}]) ?([+-]) ?(?=[\w\\(])")
_FACTOR = re.compile(r"([1-9])\d* ?(?:\\sqrt|\\pi|[a-zA-Z])")
_NO_EXPRESSION = re.compile(r"[,=<>:|$\[\]]|\\(?:pm|mp|text|mbox|begin|cup|in|mid|\{)(?![a-zA-Z])")
_NAMED = re.compile(r"[a-zA-Z]\s*=\s*(.+)")  # x=5: its misses are those of 5
_PRIME = 1009  # an element that no list has; checked


def near_misses(gold: str) -> list[Variant]:
    """All wrong answers that the rules make of a gold one; none twice."""
    found: dict[str, Variant] = {}
    text = body(gold)
    if text and (named := _NAMED.fullmatch(text)) and quantity(named[1]):
        text = named[1]
    if text is not None:
        for kind, rule in RULES.items():
            for answer in rule(text):
                if answer not in (gold, text):
                    found.setdefault(answer, Variant(kind, answer))
    return list(found.values())


def digits(text: str) -> Iterator[str]:
    """Another first and another last digit of each number: as a whole, or of one element."""
    if plain := quantity(text):
        yield from (plain.before + other + plain.after for other in _other_digits(plain.number))
        return
    for i, found in _numbers(text):
        yield from (_with(text, i, other) for other in _other_digits(found) if _is_new(text, other))
    if _is_expression(text):
        yield f"{text}+1"
        if (factor := _FACTOR.match(text)) and not _SUM.search(text):
            yield _digit_up(text, factor.start(1))


def _other_digits(plain: Number) -> Iterator[str]:
    """The number with its first and with its last digit one up (9 becomes 8); of a fraction, the numerator's."""
    places = [found.start() for found in re.finditer(r"\d", plain.text)]
    if plain.form == "e-notation":
        places = [place for place in places if place < plain.text.index("e")]
    if plain.form in ("fraction", "mixed"):
        yield _digit_up(plain.text, places[0])
        return
    first = next((place for place in places if plain.text[place] != "0"), places[0])
    yield _digit_up(plain.text, first)
    if len(places) <= _MAX_DIGITS or plain.form in ("integer", "thousands"):
        yield _digit_up(plain.text, places[-1])


def _digit_up(text: str, place: int) -> str:
    other = "8" if text[place] == "9" else str(int(text[place]) + 1)
    return text[:place] + other + text[place + 1 :]


def signs(text: str) -> Iterator[str]:
    """The other sign of a number, of one element, or of one term of a sum."""
    if plain := quantity(text):
        if plain.number.value and plain.around != "money":
            yield _negative(plain.number.text) + plain.after
        return
    for i, found in _numbers(text):
        if found.value and _is_new(text, _negative(found.text)):
            yield _with(text, i, _negative(found.text))
    if _is_expression(text):
        yield f"-\\left({text}\\right)"
    if not re.search(r"[,=<>]|\\(?:pm|text|begin|cup)", text) and len(terms := list(_SUM.finditer(text))) == 1:
        start, end = terms[0].span(1)
        if _top_level(text, start):
            yield text[:start] + ("-" if terms[0][1] == "+" else "+") + text[end:]


def _negative(digits_: str) -> str:
    return digits_[1:] if digits_.startswith("-") else "-" + digits_.removeprefix("+")


def _top_level(text: str, place: int) -> bool:
    before = text[:place]
    return all(before.count(a) == before.count(b) for a, b in ("{}", "()", "[]"))


def upside_down(text: str) -> Iterator[str]:
    """Numerator and denominator swapped."""
    plain = quantity(text)
    if plain and plain.number.form == "fraction" and abs(plain.number.value) not in (0, 1):
        yield plain.before + fraction(1 / plain.number.value) + plain.after
        yield f"{plain.before}{(1 / plain.number.value).numerator}/{(1 / plain.number.value).denominator}{plain.after}"


def dropped_or_added(text: str) -> Iterator[str]:
    """The first or last element left out, or one too many: of a set, a list, a tuple, a matrix's rows."""
    if quantity(text) or not (found := _list(text)):
        return
    opening, parts, closing = found
    if len(set(parts)) == len(parts) > 1:
        yield opening + ",".join(parts[1:]) + closing
        yield opening + ",".join(parts[:-1]) + closing
    if str(_PRIME) not in parts and not _is_interval(text):
        yield opening + ",".join([*parts, _like(parts[-1])]) + closing


def _like(element: str) -> str:
    """An element that is new, of the same kind as another: a tuple for a tuple."""
    found = enclosed(element)
    return f"{found[0]}{','.join([str(_PRIME)] * len(elements(found[1])))}{found[2]}" if found else str(_PRIME)


def interval_ends(text: str) -> Iterator[str]:
    """An open end for a closed one, and the other way round, where the end is a number."""
    if not _is_interval(text):
        return
    opening, inner, closing = enclosed(text) or ("", "", "")
    low, high = elements(inner)
    if "infty" not in low:
        yield f"{'(' if bracket(opening) == '[' else '['}{low},{high}{bracket(closing)}"
    if "infty" not in high:
        yield f"{bracket(opening)}{low},{high}{')' if bracket(closing) == ']' else ']'}"


def scales(text: str) -> Iterator[str]:
    """A unit of another scale with its number, where the number changes; a power of ten up or down."""
    plain = quantity(text)
    if plain is None or not plain.number.value:
        return
    digits_ = decimal(plain.number.value * 1000) or fraction(plain.number.value * 1000)
    if plain.around in ("", "unit") and plain.number.form != "e-notation":
        yield f"{digits_}\\text{{ mm}}"
    if plain.around == "percent":
        yield f"{decimal(plain.number.value / 100) or digits_}\\%"
    if plain.number.form == "e-notation":
        mantissa, _, exponent = plain.number.text.partition("e")
        yield f"{mantissa} \\times 10^{{{int(exponent) + 1}}}"
        yield f"{mantissa} \\times 10^{{{int(exponent) - 1}}}"
        yield f"{mantissa}e{-int(exponent)}"
        yield mantissa
        yield "0" if plain.number.value < 1 else f"{mantissa}{exponent}"


def swapped(text: str) -> Iterator[str]:
    """Two rows of a matrix, or two places of a tuple, in the other order."""
    if matrix := rows(text):
        beginning, lines, end = matrix
        if len({re.sub(r"\s", "", line) for line in lines}) == len(lines) > 1:
            yield beginning + r" \\ ".join([lines[1], lines[0], *lines[2:]]) + end
    elif (found := enclosed(text)) and bracket(found[0]) != "{" and len(parts := elements(found[1])) > 1:
        values = [value.value if (value := number(part)) else None for part in parts[:2]]
        if None not in values and values[0] != values[1]:
            yield found[0] + ",".join([parts[1], parts[0], *parts[2:]]) + found[2]


def restated(text: str) -> Iterator[str]:
    """Calculations that are left to do."""
    plain = number(text)
    if plain is None or plain.form == "e-notation":
        return
    value = plain.value
    write = _written(plain)
    yield f"{write(value - 3)}+3"
    yield f"{write(value + 4)} - 4"
    yield f"{write(value - 3)}\\,+\\,3"
    yield f"x = {write(value + 12)}-12"
    yield f"2 \\cdot {write(value / 2)}" if plain.form != "integer" or value % 2 == 0 else f"1 \\times {write(value)}"
    if plain.form in ("integer", "thousands"):
        yield f"(1)({write(value)})"
        yield f"{2 * value}/2"
        yield f"\\frac{{{3 * value}}}{{3}}"
        yield f"{2 * value} \\div 2"
        yield f"\\dfrac{{{value - 1}+1}}{{1}}"
        yield f"({write(value - 2)})+(2)"
        yield f"{write(value - 2)}+2\\text{{ cm}}"
        yield f"\\left({write(value + 2)}\\right)-2"
        yield f"\\int_{{-2}}^{{{write(value - 2)}}} dx"
        yield f"\\sum_{{i=1}}^{{2}} {write(value / 2)}"
        yield f"\\log_2(2^{{{write(value - 2)}}}2^2)"
        yield f"\\gcd({write(2 * value)}, {write(3 * value)})"
        yield f"\\max({write(value - 1)}, {write(value)})"
        yield f"{write(value - 2)}⊕2"
        yield f"2⋅{write(value / 2)}"


def _written(plain: Number) -> Callable[[Fraction], str]:
    """As the number itself is written: a fraction for a fraction."""
    return fraction if plain.form in ("fraction", "mixed") else lambda value: decimal(value) or fraction(value)


def hedged(text: str) -> Iterator[str]:
    """Two answers, one of which is right."""
    if (plain := quantity(text)) and not plain.before:
        other = next(_other_digits(plain.number))
        yield f"{text} \\text{{ or }} {other}"
        yield f"{other}, {text}" if plain.number.form != "thousands" else f"{other} or {text}"
        yield f"\\{{{text};{other}\\}}"


def words(text: str) -> Iterator[str]:
    """Another letter of a choice; the opposite of a word."""
    if letter := _LETTER.fullmatch(text):
        other = "B" if letter[1] == "A" else "A"
        yield from (text.replace(letter[1], other), f"{letter[1]} or {other}", f"{letter[1]}, {other}")
    elif word := _WORD.fullmatch(text):
        yield f"\\text{{not {word[1].strip()}}}"
        yield f"\\text{{{word[1].strip()[::-1]}}}"


def _is_expression(text: str) -> bool:
    """Whether it is one expression that is not a number, not 0 and no word: neither a list, nor an equation, nor a
    set, so that one more is another one, and so is its negative."""
    return not (quantity(text) or text.isalpha() or enclosed(text) or _NO_EXPRESSION.search(text))


def _numbers(text: str) -> Iterator[tuple[int, Number]]:
    """Place among the pieces, and number, of the elements that are numbers."""
    found = pieces(text)
    if len(found) > 3 or found[0]:
        yield from ((i, plain) for i in range(1, len(found), 2) if (plain := number(found[i])))


def _with(text: str, place: int, other: str) -> str:
    found = pieces(text)
    return "".join([*found[:place], other, *found[place + 1 :]])


def _is_new(text: str, other: str) -> bool:
    """Whether no element has this value yet: a list may only change its order by it, or name one twice."""
    new = number(other)
    values = [plain.value for _, plain in _numbers(text)]
    return new is not None and new.value not in values and all(number(part) for part in pieces(text)[1::2])


def _is_interval(text: str) -> bool:
    found = enclosed(text)
    if not found or len(elements(found[1])) != 2 or bracket(found[0]) == "{":
        return False
    return bracket(found[0]) == "[" or bracket(found[2]) == "]" or "infty" in found[1]


def _list(text: str) -> tuple[str, list[str], str] | None:
    """Brackets and elements of a set, a tuple or a list without brackets; None where there is one element alone."""
    if found := enclosed(text):
        if re.search(r"\\mid|\||:", text) or _is_interval(text):
            return None
        parts = elements(found[1])
        return (found[0], parts, found[2]) if len(parts) > 1 else None
    parts = elements(text)
    plain = not re.search(r"\\text|\\cup|=", text)
    return ("", parts, "") if len(parts) > 1 and all(parts) and plain else None


RULES: dict[str, Callable[[str], Iterator[str]]] = {
    "digit": digits,
    "sign": signs,
    "upside down": upside_down,
    "element": dropped_or_added,
    "interval end": interval_ends,
    "scale": scales,
    "swapped": swapped,
    "restated": restated,
    "two answers": hedged,
    "word": words,
}
