"""Rational numbers as answers write them, and the forms that strings alone decide."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from sgpo_core.grading.answer_forms import canonical, is_no_number, says_more, sides, skeleton, trimmed
from sgpo_core.grading.numerals import numeral, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-5", Fraction(-5)),
        ("1,234.5", Fraction(2469, 2)),
        (r"11,\! 111,\!111", Fraction(11_111_111)),
        (r"-\$5.40", Fraction(-27, 5)),
        (r"4.5\,\times\,10^{3}", Fraction(4500)),
        (r"10^{-2}", Fraction(1, 100)),
        ("1e-2", Fraction(1, 100)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"\frac12", Fraction(1, 2)),
        (r"2\frac{1}{3}", Fraction(7, 3)),
        ("-1./3", Fraction(-1, 3)),
        (r"12\,\mathrm{cm}^{2}", Fraction(12)),
        (r"\text{1.6}", Fraction(8, 5)),
        (r"90^{\circ}", Fraction(90)),
        ("25 miles per hour", Fraction(25)),
        ("12 m/s", Fraction(12)),
        (r"\frac{1}{0}", None),
        (r"5\text{ or }7", None),
        (r"5\text{ or more}", None),
        (r"10\text{ minutes }30\text{ seconds}", None),
        ("2+3", None),
        ("5x", None),
        ("4 2", None),
        ("1,23", None),
        ("", None),
        (r"10^{99999}", None),  # five digits: nothing that takes long is computed
    ],
)
def test_reading(text: str, value: Fraction | None) -> None:
    found = numeral(text)
    assert (found.value if found else None) == value


@pytest.mark.parametrize(
    ("gold", "given", "same"),
    [
        ("1/3", "0.333333", True),  # off by a millionth of it
        ("1/3", "0.33333", False),
        ("4.6e-24", "4.7e-24", False),
        ("1e-8", "0", False),
        ("5", "4.9999999", False),  # an integer is exact
        ("0", "0.0000001", False),
        (r"50\%", "50", True),
        (r"50\%", "0.5", True),
        ("0.5", r"50\%", True),
        ("50", "0.5", False),
        (r"50\%", r"0.5\%", False),
    ],
)
def test_equality(gold: str, given: str, same: bool) -> None:
    expected, found = numeral(gold), numeral(given)
    assert expected is not None
    assert found is not None
    assert same_number(expected, found) is same


def test_skeletons_keep_what_is_said() -> None:
    assert skeleton(r"\left( 3 , \dfrac{1}{2}\right)") == skeleton(r"(3,\frac12)")
    assert skeleton("x^{2}3") == skeleton("x^23")
    assert skeleton("x^{23}") != skeleton("x^23")
    assert skeleton("1 1/2") != skeleton("11/2")
    assert skeleton(r"\{ a , b \}") == skeleton(r"\{a,b\}") != skeleton("a,b")
    assert skeleton("E_1, E_2") == skeleton("E_{2},E_{1}")
    assert skeleton("(a,b)") != skeleton("(b,a)")
    assert skeleton("-1,234") != skeleton("234,-1")
    assert skeleton("1,234.5") != skeleton("234.5,1")
    assert skeleton(r"\text{ no }") == skeleton(r"\text{no}") != skeleton(r"\text{on}")
    assert skeleton(r"a \\ b") != skeleton("a b")


def test_trimming_keeps_the_end_of_a_row() -> None:
    assert trimmed(r"\, 5 \;\!") == "5"
    assert trimmed("5\\\\,") == "5\\\\,"
    assert trimmed(r"\,") == trimmed(" ") == trimmed("") == ""


def test_chains_and_what_is_left_to_do() -> None:
    assert sides(r"x = 12\text{ cm}") == ["x", r"12\text{ cm}"]
    assert sides("x=58,500") == ["x", "58,500"]
    assert sides("x=5, x=7") == ["x=5, x=7"]
    assert sides(r"x=5\text{ or }7") == [r"x=5\text{ or }7"]
    assert is_no_number("10/2", whole=True)
    assert not is_no_number("10/2", whole=False)
    assert is_no_number(r"\frac{\sqrt{100}}{2}", whole=True)
    assert is_no_number("0.8+0.8", whole=False)
    assert not is_no_number(r"4.5 \times 10^{33}", whole=True)
    assert is_no_number(r"45 \times 10^{32} \cdot 2", whole=True)
    assert not is_no_number(r"12\,\frac{\text{m}}{\text{s}^2}", whole=True)
    assert says_more(r"1.6\text{ is wrong}")


PIECES = [
    *(
        "1",
        "1 ",
        "1,",
        ",111",
        "1.",
        "\\,",
        "\\! ",
        "{",
        "}",
        "{1}",
        "\\text{",
        "\\text{ a}",
        "\\frac",
        "\\frac{1}",
        "-",
    ),
    *(
        "+",
        "1/",
        "10^",
        "=",
        "]1,",
        "\\cup",
        "^\\circ",
        "%",
        "$",
        "\\(",
        "a ",
        "1 ab ",
        "\\left",
        "e1",
        "e",
        "~",
        "\\\\",
    ),
]


@pytest.mark.parametrize("piece", PIECES)
def test_long_answers_take_no_longer(piece: str) -> None:
    """Thirty answers of 1,024 characters: a few ms each, where a backtracking expression would take seconds."""
    began = time.thread_time()
    for end in ("", "1", "!", "}", "cm", "\\%"):
        for beginning in ("", "1", "\\text{ cm}", "x=", "\\frac{"):
            text = canonical((beginning + piece * 1024)[: 1024 - len(end)] + end)
            numeral(text)
            skeleton(text)
            says_more(text)
            is_no_number(text, whole=True)
            for side in sides(text):
                numeral(side)
    assert time.thread_time() - began < 3
