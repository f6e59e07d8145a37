"""Other ways to write a gold answer, by kind. Each is only made where it is certain to say the same by the rules of
docs/benchmarks.md: a unit may be added, and a list of solutions has no order.

Left out as ambiguous: `]0,1[` for `(0,1)`, which may be a point; a/b for a fraction with something beside it; commas of
thousands inside of lists; units, wrappers and names for anything but plain numbers; golds with words between formulas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sgpo_core.grading.gold_shapes import (
    body,
    bracket,
    elements,
    enclosed,
    number,
    quantity,
)
from sgpo_core.grading.number_forms import (
    decimal_or_fraction,
    degrees,
    e_notation,
    in_latex,
    percent,
    slash,
    thousands,
    units,
)

_WORDS = re.compile(r"\\(?:text|mbox|mathrm)\s*\{\s*([a-zA-Z][a-zA-Z ]*)\}")
_CHOICE = re.compile(r"[A-K]|\\text\{\(([A-E])\)\}")
_BARE_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_GROUPED = r"\\(?:text|mbox|mathrm|textbf|operatorname|begin|end)\s*\{[^{}]*\}"
_ATOM = re.compile(rf"{_GROUPED}|\\[a-zA-Z]+|\\.|\d*\.\d+|\d+|\s+|.", re.DOTALL)
_OPERATORS = frozenset("+-=<>") | {r"\cup", r"\times", r"\cdot", r"\pm", r"\in", r"\le", r"\ge", r"\leq", r"\geq"}
_NO_OPERAND = _OPERATORS | frozenset("([{,;^_|&") | {r"\left", r"\{", r"\\"}


@dataclass(frozen=True, slots=True)
class Variant:
    """Another answer to the problem of a gold one: `kind` names the rule that made it."""

    kind: str
    answer: str


def rewritings(gold: str) -> list[Variant]:
    """Itself (kind `self`), then all other ways that are certain to mean the same; none twice."""
    found = {gold: Variant("self", gold)}
    text = body(gold)
    if text is None or (not text.isalpha() and _BARE_WORD.search(re.sub(_GROUPED, "", text))):
        return list(found.values())
    for kind, rule in RULES.items():
        for answer in rule(text):
            if number(text) or not number(answer) or kind not in ("spacing", "a/b", "decimal or fraction"):
                found.setdefault(answer, Variant(kind, answer))
    return list(found.values())


def spacing(text: str) -> Iterator[str]:
    """Spaces of three kinds around operators and behind commas, and none at all."""
    atoms = [atom[0] for atom in _ATOM.finditer(text)]
    yield f"\\,{text}\\;"
    if (plain := quantity(text)) and plain.number.form in ("thousands", "e-notation"):
        return
    for space in ("", " ", r"\,", r"\ "):
        yield _joined(atoms, space)


def _joined(atoms: list[str], space: str) -> str:
    """The atoms, with `space` around binary operators and behind commas, and elsewhere no space but where one is
    needed: between two digits, and between a command and a letter."""
    result, before = "", ""
    for i, atom in enumerate(atoms):
        if atom.isspace():
            following = atoms[i + 1] if i + 1 < len(atoms) else ""
            command = re.fullmatch(r"\\[a-zA-Z]+", before) and following[:1].isalpha()
            if command or (before[-1:].isdigit() and following[:1].isdigit()):
                result += " "
            continue
        binary = atom in _OPERATORS and before and before not in _NO_OPERAND
        glued = "" if space or not re.fullmatch(r"\\[a-zA-Z]+", atom) else " "
        result += f"{space}{atom}{space or glued}" if binary else atom + space if atom == "," else atom
        before = atom
    return result.strip()


def fraction_style(text: str) -> Iterator[str]:
    """\\frac, \\dfrac and \\tfrac, wherever one of them stands."""
    if re.search(r"\\[dt]?frac(?![a-zA-Z])", text):
        yield from (re.sub(r"\\[dt]?frac(?![a-zA-Z])", rf"\\{name}", text) for name in ("frac", "dfrac", "tfrac"))
        yield re.sub(r"\\([dt]?frac)\s*(\d)\s*(\d)(?!\d)", r"\\\1{\2}{\3}", text)


def braces(text: str) -> Iterator[str]:
    """Braces round an argument of one character: x^2 and x^{2}, \\sqrt2 and \\sqrt{2}."""
    yield re.sub(r"(\^|_|\\sqrt)\s*(\d)(?!\d)", r"\1{\2}", text)
    yield re.sub(r"(\^|_|\\sqrt)\s*\{\s*(\d)\s*\}(?!\d)", r"\1\2", text)


def order(text: str) -> Iterator[str]:
    """Elements of a set, or of a list of solutions, from the last to the first."""
    brackets = enclosed(text)
    if quantity(text):
        return
    if brackets and bracket(brackets[0]) == "{" and not re.search(r"\\mid|\||:", text):
        yield f"{brackets[0]}{','.join(reversed(elements(brackets[1])))}{brackets[2]}"
    elif not brackets and len(solutions := elements(text)) > 1:
        yield ", ".join(reversed(solutions))
        yield " \\text{ and } ".join([", ".join(solutions[:-1]), solutions[-1]])


def intervals(text: str) -> Iterator[str]:
    """Stretched and plain brackets; semicolons and brackets turned outward, where it is certain to be an interval."""
    parts = elements(text, r"\cup")
    opened = [enclosed(part) for part in parts]
    if not all(found and bracket(found[0]) in "([" and len(elements(found[1])) == 2 for found in opened):
        return
    inside = [found for found in opened if found]
    low_high = [elements(found[1]) for found in inside]
    ends = [
        (bracket(found[0]), low, high, bracket(found[2])) for found, (low, high) in zip(inside, low_high, strict=True)
    ]
    yield " \\cup ".join(f"\\left{a}{low}, {high}\\right{b}" for a, low, high, b in ends)
    yield r"\cup".join(f"{a}{low},{high}{b}" for a, low, high, b in ends)
    if len(parts) == 1 and "[" not in text and "]" not in text and r"\infty" not in text:
        return  # a point, perhaps
    yield r"\cup".join(f"{a}{low};{high}{b}" for a, low, high, b in ends)
    turned = {"(": "]", ")": "["}
    yield r"\cup".join(f"{turned.get(a, a)}{low},{high}{turned.get(b, b)}" for a, low, high, b in ends)
    if "+\\infty" in text:
        yield text.replace(r"+\infty", r"\infty")
    else:
        yield re.sub(r"(?<!-)\\infty", lambda found: r"+\infty", text)


def names(text: str) -> Iterator[str]:
    """`x=` in front of a number, `x \\in` in front of an interval; the value alone where there is a name."""
    plain = quantity(text)
    if plain:
        yield from (f"x={text}", f"x = {in_latex(plain.number)}{plain.after}" if not plain.before else f"x = {text}")
    solutions = elements(text)
    if len(solutions) > 1 and not plain and all(number(one) for one in solutions):
        yield ", ".join(f"x={one}" for one in solutions)
    if named := re.fullmatch(r"[a-zA-Z]\s*=([^=<>,;]+)", text):
        yield named[1].strip()
        yield f"{named[1].strip()}={text.partition('=')[0].strip()}"
    if (
        (found := enclosed(text))
        and {bracket(found[0]), bracket(found[2])} & {"[", "]"}
        and len(elements(found[1])) == 2
    ):
        yield f"x \\in {text}"


def wrappers(text: str) -> Iterator[str]:
    """Fonts around numbers, words and letters of a choice."""
    if (plain := number(text)) and plain.form in ("integer", "decimal"):
        yield from (f"\\text{{{text}}}", f"\\mathrm{{{text}}}", f"\\mathbf{{{text}}}", f"{{{text}}}")
    elif letter := _CHOICE.fullmatch(text):
        name = letter[1] or text
        yield from (form.format(name) for form in ("{}", "({})", "\\text{{{}}}", "\\textbf{{({})}}", "\\mathrm{{{}}}"))
    elif (word := _WORDS.fullmatch(text)) or (text.isalpha() and len(text) > 1):
        name = word[1] if word else text
        yield from (
            form.format(name) for form in ("{}", "\\text{{{}}}", "\\mathrm{{{}}}", "\\textbf{{{}}}", "\\text{{ {} }}")
        )


def full_stop(text: str) -> Iterator[str]:
    """The full stop of the sentence."""
    if not text.endswith("."):
        yield f"{text}."


def dollars(text: str) -> Iterator[str]:
    """Signs of mathematics around the answer, and none."""
    yield text
    yield from (f"${text}$", f"\\({text}\\)", f"$ {text} $")
    if not text.endswith("."):
        yield from (f"${text}.$", f"${text}$.")


RULES: dict[str, Callable[[str], Iterator[str]]] = {
    "spacing": spacing,
    "fraction style": fraction_style,
    "a/b": slash,
    "decimal or fraction": decimal_or_fraction,
    "unit": units,
    "percent": percent,
    "e-notation": e_notation,
    "order": order,
    "interval": intervals,
    "degrees": degrees,
    "thousands": thousands,
    "name": names,
    "wrapper": wrappers,
    "full stop": full_stop,
    "dollars": dollars,
    "braces": braces,
}
