"""Other ways to write a number of a gold answer: the rules of `rewritings` for numbers, and how a value is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from sgpo_core.grading.gold_shapes import Number, Quantity, number, pieces, quantity

_MAX_DECIMALS = 10  # of a fraction that is written as a decimal
_MIN_POWER = 4  # zeros of an integer that is written as a power of ten
_SMALL = Fraction(1, 100)  # so are decimals below


def slash(text: str) -> Iterator[str]:
    """a/b for \\frac{a}{b} and back, for fractions that stand alone or as elements."""

    def other(found: Number) -> str:
        if found.form != "fraction":
            return found.text
        above, below = re.findall(r"-?\d+", found.text) if "/" in found.text else _parts(found.text)
        return f"\\frac{{{above}}}{{{below}}}" if "/" in found.text else f"{_sign(found, above)}{above}/{below}"

    yield _each(text, other)


def _parts(fraction: str) -> tuple[str, str]:
    found = re.findall(r"\{\s*(-?\d+)\s*\}|(\d)", fraction)
    above, below = (braced or bare for braced, bare in found)
    return above, below


def _sign(found: Number, above: str) -> str:
    return "-" if found.value < 0 and not above.startswith("-") else ""


def decimal_or_fraction(text: str) -> Iterator[str]:
    """Exact decimals for fractions and mixed numbers, fractions for decimals; a last zero more."""

    def other(found: Number) -> str:
        if found.form in ("fraction", "mixed"):
            return decimal(found.value) or found.text
        return fraction(found.value) if found.form == "decimal" else found.text

    yield _each(text, other)
    if (plain := quantity(text)) and plain.number.form in ("fraction", "mixed"):
        yield _around(plain, fraction(plain.number.value))
    if plain and plain.number.form == "decimal":
        yield _around(plain, plain.number.text + "0")
        yield _around(plain, re.sub(r"^([+-]?)\.", r"\g<1>0.", plain.number.text))
        yield _around(plain, re.sub(r"^([+-]?)0\.", r"\1.", plain.number.text))


def units(text: str) -> Iterator[str]:
    """A unit behind a plain number, and no unit where the gold answer has one."""
    plain = quantity(text)
    if plain and plain.around in ("unit", "money"):
        yield plain.number.text
    if plain and plain.around == "unit":
        word = re.sub(r"\\(?:text|mbox|mathrm)\{\s*([a-zA-Z]+)\s*\}", r"\1", plain.after).strip()
        yield f"{plain.number.text}\\text{{ {word}}}" if "^" not in word else f"{plain.number.text}\\ {plain.after}"
    if plain and not plain.around:
        number_text = in_latex(plain.number)
        for unit in (
            r"\text{ cm}",
            " cm",
            r"\,\mathrm{cm}",
            r"~\mathrm{m/s}",
            r"\text{ square units}",
            r"\ \text{cm}^2",
        ):
            yield number_text + unit


def percent(text: str) -> Iterator[str]:
    """Ways to write the sign and the word for it."""
    plain = quantity(text)
    if plain and plain.around == "percent":
        for sign in (r"\%", "%", r" \%", r"\,\%", r"\text{ percent}", " percent", r"\text{\%}"):
            yield plain.number.text + sign


def e_notation(text: str) -> Iterator[str]:
    """Powers of ten for the notation of programs, long zeros and small decimals, and back."""
    plain = number(text)
    if plain is None or not plain.value or plain.form in ("fraction", "mixed"):
        return
    if plain.form == "e-notation":
        mantissa, exponent = plain.text.lower().split("e")
    elif (plain.form != "decimal" and str(int(plain.value)).endswith("0" * _MIN_POWER)) or abs(plain.value) < _SMALL:
        mantissa, exponent = _scientific(plain.value)
    else:
        return
    for times in (r" \times ", r"\times", r" \cdot ", r"\,\times\,"):
        yield f"{mantissa}{times}10^{{{exponent}}}"
    yield f"{mantissa}e{exponent}"
    yield f"{mantissa}E{exponent}"
    if "." in mantissa:  # the same digits, more than one before the point
        yield f"{mantissa}0 \\times 10^{{{exponent}}}"


def _scientific(value: Fraction) -> tuple[str, str]:
    exponent = len(str(int(abs(value)))) - 1 if abs(value) >= 1 else 0
    while abs(value) < Fraction(10) ** exponent:
        exponent -= 1
    mantissa = decimal(value / Fraction(10) ** exponent)
    assert mantissa is not None, "made of an integer or of a decimal that ends"
    return mantissa, str(exponent)


def degrees(text: str) -> Iterator[str]:
    """The sign with and without braces, the word, and neither."""
    plain = quantity(text)
    if plain and plain.around == "degrees":
        for sign in (r"^\circ", r"^{\circ}", r"\text{ degrees}", " degrees", "°", ""):
            yield plain.number.text + sign


def thousands(text: str) -> Iterator[str]:
    """Groups of three digits, with and without what separates them."""
    plain = quantity(text)
    if plain and plain.number.form in ("integer", "thousands") and abs(plain.number.value) >= 1000:
        for between in ("", ",", "{,}", r"\,", r",\!"):
            yield _around(plain, f"{int(plain.number.value):,}".replace(",", between))


def decimal(value: Fraction) -> str | None:
    """The decimal that ends and is exactly the value; None where it has more than ten places or does not end."""
    for places in range(_MAX_DECIMALS + 1):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = f"{abs(scaled.numerator):0{places + 1}d}"
            whole = f"{digits[:-places]}.{digits[-places:]}" if places else digits
            return f"-{whole}" if value < 0 else whole
    return None


def fraction(value: Fraction) -> str:
    """In lowest terms, as LaTeX; an integer where it is one."""
    if value.denominator == 1:
        return str(value.numerator)
    bar = f"\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    return f"-{bar}" if value < 0 else bar


def _each(text: str, other: Callable[[Number], str]) -> str:
    """The text with each of its elements that is a number (with or without what stands around) written otherwise."""
    if plain := quantity(text):
        return _around(plain, other(plain.number))
    found = pieces(text)
    for i in range(1, len(found), 2):
        if element := number(found[i]):
            found[i] = other(element)
    return "".join(found)


def _around(plain: Quantity, digits: str) -> str:
    return plain.before + digits + plain.after


def in_latex(plain: Number) -> str:
    """As a number with something beside it is written: 4.5 \\times 10^{33} for 4.5e33."""
    mantissa, _, exponent = plain.text.partition("e") if plain.form == "e-notation" else (plain.text, "", "")
    return f"{mantissa} \\times 10^{{{exponent}}}" if exponent else plain.text
