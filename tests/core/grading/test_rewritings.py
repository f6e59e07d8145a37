"""Rewritings and near misses of gold answers: hand-made expectations, then real golds graded by the real grader."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sgpo_core.grading.gold_shapes import body, elements, enclosed, number, pieces, quantity
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.grading.near_misses import near_misses
from sgpo_core.grading.number_forms import decimal, fraction
from sgpo_core.grading.rewritings import RULES, rewritings
from sgpo_core.types import Outcome

# One of each shape that MATH-500, Minerva, OlympiadBench, Gaokao 2023 en and AMC 2023 have.
REAL = [
    *(
        "27.0",
        "-256",
        "58,500",
        r"11,\! 111,\! 111,\! 100",
        r"\$32,\!348",
        ".35625",
        "4.5e33",
        "4.6e-24",
        "1e-8",
        "-1./3",
    ),
    *(r"\frac43", r"\dfrac{17}{50}", "$-\\frac{1}{2}$", r"137 \frac{1}{2}", r"\frac{270}7\text{ degrees}", "90^\\circ"),
    *("62.5%", "$1.1\\%$", r"5.4 \text{ cents}", r"864 \mbox{ inches}^2", r"3\sqrt{13}", "1 \\pm \\sqrt{19}", "6 - 5i"),
    *("1,-2", "$48$, $384$", "$2$ or $-2$ or $\\frac{1}{2}$ or $-\\frac{1}{2}$", r"\{1\pm\sqrt{5},-2\}", "(6,31,-1)"),
    *("(3,4]", r"(2,12) \cup (12,102)", "$[2,+\\infty)$", "x \\in [-2,7]", r"\left( 3, \frac{\pi}{2} \right)"),
    *(r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}", r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}"),
    *(
        "$(1,0),(\\frac{1}{100},-8),(100,8)$",
        "y = 2x + 3",
        "$f(x)=x+22$",
        r"\text{(C)}",
        r"\text{Evelyn}",
        "204_5",
        "x=5",
    ),
    *("$\\{x|-2\\leq x < 1\\}$", "E_{1},E_{2}", r"\frac{e^{2 i t}}{(2+2 i)}", "$\\frac{1}{2 n+2}$", "$10^{3},10$"),
]


def made(gold: str, kind: str) -> list[str]:
    return [variant.answer for variant in rewritings(gold) + near_misses(gold) if variant.kind == kind]


@pytest.mark.parametrize(
    ("gold", "kind", "expected"),
    [
        ("1,-2", "spacing", ["\\,1,-2\\;", "1, -2", "1,\\,-2", "1,\\ -2"]),
        ("x+1 = 2y", "spacing", ["\\,x+1 = 2y\\;", "x+1=2y", "x + 1 = 2y", "x\\,+\\,1\\,=\\,2y", "x\\ +\\ 1\\ =\\ 2y"]),
        ("48, 384", "spacing", ["\\,48, 384\\;", "48,\\,384", "48,\\ 384"]),  # 48,384 would be one number
        ("-\\frac{3}{8}", "fraction style", ["-\\dfrac{3}{8}", "-\\tfrac{3}{8}"]),
        ("\\frac43", "fraction style", ["\\dfrac43", "\\tfrac43", "\\frac{4}{3}"]),
        ("(1,\\frac{-1}{2})", "a/b", ["(1,-1/2)"]),
        ("-\\frac{3}{8}", "a/b", ["-3/8"]),
        ("1/3", "a/b", ["\\frac{1}{3}"]),
        ("\\frac{2}{3}x", "a/b", []),  # 2/3x may be 2/(3x)
        ("\\frac{3}{8}", "decimal or fraction", ["0.375"]),
        ("\\frac{1}{3}", "decimal or fraction", []),
        ("1\\frac45", "decimal or fraction", ["1.8", "\\frac{9}{5}"]),
        ("0.5", "decimal or fraction", ["\\frac{1}{2}", "0.50", ".5"]),
        ("5.4 \\text{ cents}", "unit", ["5.4"]),  # 5.4\\text{ cents} is a matter of spacing
        ("8 \\%", "percent", ["8%", "8\\,\\%", "8\\text{ percent}", "8 percent", "8\\text{\\%}"]),
        ("2,1,3", "order", ["3, 1, 2", "2, 1 \\text{ and } 3"]),
        ("\\{2,1\\}", "order", ["\\{1,2\\}"]),
        ("(2,1)", "order", []),  # a pair has an order
        ("\\{x|x>1,x<2\\}", "order", []),
        ("[2,3)", "interval", ["\\left[2, 3\\right)", "[2;3)", "[2,3["]),
        ("(2,3)", "interval", ["\\left(2, 3\\right)"]),  # a point, perhaps
        ("(2,\\infty)", "interval", ["\\left(2, \\infty\\right)", "(2;\\infty)", "]2,\\infty[", "(2,+\\infty)"]),
        ("58,500", "thousands", ["58500", "58{,}500", "58\\,500", "58,\\!500"]),
        ("1000", "thousands", ["1,000", "1{,}000", "1\\,000", "1,\\!000"]),
        ("999", "thousands", []),
        ("x=5", "name", ["5", "5=x"]),
        ("1,2", "name", ["x=1, x=2"]),
        ("4.5e33", "name", ["x=4.5e33", "x = 4.5 \\times 10^{33}"]),
        ("x^2", "braces", ["x^{2}"]),
        ("5", "full stop", ["5."]),
        ("b is odd", "full stop", []),  # words between formulas
        ("12", "digit", ["22", "13"]),
        ("99", "digit", ["89", "98"]),
        ("x=12", "digit", ["22", "13"]),
        ("\\frac{3}{8}", "digit", ["\\frac{4}{8}"]),
        ("1,2", "digit", ["1,3"]),  # 2,2 would name one twice
        ("0.1234567", "digit", ["0.2234567"]),  # six digits are compared
        ("0", "sign", []),
        ("1+2i", "sign", ["-\\left(1+2i\\right)", "1-2i"]),
        ("3\\sqrt{13}", "sign", ["-\\left(3\\sqrt{13}\\right)"]),
        ("3\\sqrt{13}", "digit", ["3\\sqrt{13}+1", "4\\sqrt{13}"]),
        ("\\pm 2x", "sign", []),  # the negative is the same
        ("1,-1", "sign", []),  # the same list in another order
        ("\\frac{3}{8}", "upside down", ["\\frac{8}{3}", "8/3"]),
        ("\\frac{3}{3}", "upside down", []),
        ("1,2,3", "element", ["2,3", "1,2", "1,2,3,1009"]),
        ("(1,2),(3,4)", "element", ["(3,4)", "(1,2)", "(1,2),(3,4),(1009,1009)"]),
        ("-2,-2", "element", ["-2,-2,1009"]),
        ("(3,4]", "interval end", ["[3,4]", "(3,4)"]),
        ("(-\\infty,0]", "interval end", ["(-\\infty,0)"]),
        ("(3,4)", "interval end", []),
        ("3e-8", "scale", ["3 \\times 10^{-7}", "3 \\times 10^{-9}", "3e8", "3", "0"]),
        ("50\\%", "scale", ["0.5\\%"]),
        ("(1,2,3)", "swapped", ["(2,1,3)"]),
        ("(1,1)", "swapped", []),
        (
            "\\frac{1}{2}",
            "restated",
            ["-\\frac{5}{2}+3", "\\frac{9}{2} - 4", "-\\frac{5}{2}\\,+\\,3", "x = \\frac{25}{2}-12"],
        ),
        ("n+1", "restated", []),
        ("\\text{even}", "word", ["\\text{not even}", "\\text{neve}"]),
    ],
)
def test_what_is_made(gold: str, kind: str, expected: list[str]) -> None:
    found = made(gold, kind)
    assert (found[: len(expected)] if kind == "restated" and expected else found) == expected


def test_scientific_notation() -> None:
    """400000 = 4 x 10^5 and .0000672 = 6.72 x 10^-5; 4,000 has too few zeros, and 0.5 is not small."""
    assert made("400000", "e-notation")[0] == "4 \\times 10^{5}"
    assert made(".0000672", "e-notation")[0] == "6.72 \\times 10^{-5}"
    assert made("4000", "e-notation") == made("0.5", "e-notation") == made("0", "e-notation") == []


def test_nothing_is_made_twice_and_all_kinds_are_made() -> None:
    for gold in REAL:
        answers = [variant.answer for variant in rewritings(gold)]
        assert answers[0] == gold
        assert len(set(answers)) == len(answers)
        assert not set(answers) & {variant.answer for variant in near_misses(gold)}
    assert {variant.kind for gold in REAL for variant in rewritings(gold)} == {"self", *RULES}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-007", Fraction(-7)),
        ("1,234", Fraction(1234)),
        (".5", Fraction(1, 2)),
        ("1e-3", Fraction(1, 1000)),
        ("-\\frac{3}{4}", Fraction(-3, 4)),
        ("\\frac34", Fraction(3, 4)),
        ("2\\frac{1}{3}", Fraction(7, 3)),
        ("\\frac{1}{0}", None),
        ("--5", None),
        ("x", None),
        ("5x", None),
        ("1,23", None),
    ],
)
def test_numbers(text: str, value: Fraction | None) -> None:
    found = number(text)
    assert (found.value if found else None) == value


def test_shapes() -> None:
    assert body("$48$, $384$") == "48, 384"
    assert body("$2$ or $-2$") == "2 \\text{ or } -2"
    assert body("$f(x)=ax$, where $a$ is odd") is None
    assert body("$145$solution:") is None
    assert body("221,$8") is None
    assert elements("(1,2),\\{3,4\\},x_{1,2}") == ["(1,2)", "\\{3,4\\}", "x_{1,2}"]
    assert enclosed("\\left[0,1\\right)") == ("\\left[", "0,1", "\\right)")
    assert enclosed("(1,2),(3,4)") is None
    assert pieces("(1,2)") == ["(", "1", ",", "2", ")"]
    assert "".join(pieces("\\begin{pmatrix}1\\\\2\\end{pmatrix}")) == "\\begin{pmatrix}1\\\\2\\end{pmatrix}"
    found = quantity("15\\mbox{ cm}^2")
    assert found is not None
    assert (found.number.value, found.around, found.after) == (15, "unit", "\\mbox{ cm}^2")


def test_values_are_written_exactly() -> None:
    assert [decimal(Fraction(*value)) for value in ((3, 8), (-1, 20), (7, 1), (1, 3))] == ["0.375", "-0.05", "7", None]
    assert [fraction(Fraction(*value)) for value in ((6, 8), (-1, 3), (4, 2))] == ["\\frac{3}{4}", "-\\frac{1}{3}", "2"]


def test_real_golds_accept_their_rewritings_and_refuse_near_misses() -> None:
    right = [(gold, variant.answer) for gold in REAL for variant in rewritings(gold)]
    wrong = [(gold, variant.answer) for gold in REAL for variant in near_misses(gold)]
    with AnswerGrader(workers=2) as grader:
        grades = grader.grade([(gold, f"\\boxed{{{answer}}}") for gold, answer in right + wrong])
    correct = [pair for pair, grade in zip(right + wrong, grades, strict=True) if grade.outcome is Outcome.CORRECT]
    assert [pair for pair in wrong if pair in correct] == []
    assert [pair for pair in right if pair not in correct] == []
