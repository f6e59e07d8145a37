"""Equations in running text: which are read, which hold, and what is passed over. The sentences are our own; their
shapes are those of responses that the judge once called wrong, or that it could not read (docs/judges.md)."""

from __future__ import annotations

import time

import pytest

from sgpo_core.judges.equations import MAX_TEXT, equations

HOLDS = [
    "2 + 3 = 5",
    "2+3=5.",
    "We get 2 + 3 = 5 apples, so",
    "x = 3 + 4 = 7",
    "1. 2 + 3 = 5",
    "- 2 + 3 = 5",
    "20 - 6 / 2 = 17",  # not 7
    "10 - 3 - 4 = 3",  # from the left, not 11
    "6 × 7 = 42, 42 ÷ 8 = 5.25",
    "6 x 7 = 42",
    "-3 + 5 = 2",
    "2 * -3 = -6",
    "5 - 8 = −3",  # U+2212
    "0.1 + 0.2 = 0.3",  # exact, though not in binary
    "(1 + 2) * 3 + 4 = 13",
    "2(3 + 4) = 14",
    "(2)(7) = 14",
    "2^3 + 4 = 12",
    "2 ** 3 = 8",
    "5! = 120",
    "1,500 + 5 = 1505",
    "1,000 * 3 = 3,000",
    "**Total:** 5 + 3 = **8**",
    # money, units, percent
    "$24 / $6 = 4 pens",
    "Each pays $36 ÷ $9 = $4.",
    "4 boxes * 6 = 24 boxes",
    "30 minutes/day * 7 days = 210 minutes",
    "a total of 7 + 5 = 12 days",
    "5% of 500 = 25",
    "1/4 of 60 = 15",
    "20% + 30% = 50%",
    "1 / 4 = 25%",
    "3 / 12 * 100 = 25%",
    "20kg + 5kg = 25kg",
    # LaTeX
    r"$5 \times 5 = 25$",
    r"\(64 \div 2 = 32\)",
    r"\[ \frac{3}{5} \cdot 30 = 18 \text{ dogs} \]",
    r"\dfrac12 + \frac{1}{2} = \boxed{1}",
    r"\left(\frac{1}{2}\right)^2 = 0.25",
    r"\$40 - \$15 = \$25",
    r"1{,}200 + 300 = 1{,}500",
    r"90^\circ + 30^{\circ} = 120^\circ",
    r"25\% \times 80 = 20",
    "\\begin{align*} x &= 4 + 5 \\\\ &= 9 \\end{align*}",
    # rounded, cut, approximate
    "1/3 = 0.33",
    "2/3 = 0.667",
    "2/3 = 0.66",
    "100 / 3 = $33.33",
    "1/3 = 33%",
    "200 / 7 ≈ 28.6",
    r"200 / 7 \approx 29",
    "200 / 7 = about 29",
    "1.4142 * 1.4142 = 2",  # a rounded operand
    "17 / 5 = 3 with a remainder of 2",
    # calculator marks
    "She pays 3*4 = $<<3*4=12>>12",
]

WRONG = [
    "2 + 3 = 6",
    "2 + 3 = 6, so",
    "Right: 2 + 3 = 5. Wrong: 2 + 3 = 6. Right: 1 + 1 = 2",
    "x = 3 + 4 = 8",
    "$2 + 3 = 6$",
    "2 + 3 * 4 = 20",
    "10 - 3 - 4 = 11",
    "-3 + 5 = -2",
    "5 - 8 = 3",
    "2 - -3 = -1",
    "0.1 + 0.2 = 0.4",
    "2/3 = 0.64",
    "70 / 2 = 30",
    "6 × 7 = 43",
    "1 / 0 = 7 but 1 + 1 = 3",
    "$24 / $6 = $5",
    "10% of 500 = 500",
    "4 boxes * 6 = 26 boxes",
    "1,000 * 3 = 3,100",
    "2(3 + 4) = 10",
    "2^3 * 5^2 = 100",
    r"$5 \times 5 = 30$",
    r"\[ \frac{3}{5} \cdot 30 = 20 \text{ dogs} \]",
    r"\$40 - \$15 = \$35",
    r"1{,}200 + 300 = 1{,}600",
    r"50 \approx 20 + 20",
    r"12 \cdot 8 = 6 \cdot 18 = 96",
    "\\begin{align*} x &= 4 + 5 \\\\ &= 10 \\end{align*}",
    "17 / 5 = 3 with a remainder of 1",
    "48/2 = <<48/2=25>>25 clips",
    "She pays 3*4 = $<<3*4=12>>13",
]

NOT_READ = [
    "nothing to see = here",
    "",
    "5 = 6",  # no arithmetic: where a proof by contradiction arrives
    "999999999999999 + 1 = 1000000000000000",  # 16 digits
    "1 / 0 = 7",
    # more than numbers, or a part of something larger
    "x + 2 + 3 = 10",
    "2x + 3 + 4 = 10",
    "3y + 1 = 2 + 3z",
    "f(2) + 3 = 9",
    r"\sqrt{2} + 2 + 3 = 8",
    r"\frac{1}{2}ab + 3 + 4 = 10",
    "a(5) - 115 = 0",
    "half of 20 + 5 = 15",
    "the sum of 3 and 4 * 2 = 14",
    "add 20 + 10 chairs to the 4 + 6 chairs there = 40",
    "pages on day 1 * 2 = 20",
    "v1.2 + 3 = 9",
    "a_1 + 2 = 9",
    "1e3 + 1 = 5",
    "2 + 3 = 5x - 5",
    "4 + 1 = 2 \\pi",
    "2/3 = 0.\\overline{6}",
    "7 * 3 = 2 million",
    "0900 - 0130 = 0730 hours",
    "20\n- 4 + 6 = 22",  # may go on from the line before
    "3 - 1 = 1st place",
    # two readings
    "3 / 1/4 = 12",
    "1/2(3 + 1) = 2",
    "80 - 20% = 64",
    "2 1/2 + 1 = 3.5",
    # units that are converted, names
    "5 quarters = 5 * 25",
    r"\frac{1}{2} \text{ inch} = 20 \text{ miles}",
    "$1 / 2 = 50 cents",
    "2 pounds - 6 ounces = 26 ounces",
    "Cost of 3 = 2 * 6 = 12",
    "60 = 100% + 50%",
    # running totals, whole parts
    "3 * 4 = 12 + 5 + 1",
    "17 / 5 = 3",
    "17 / 5 = 4 boxes",
    # denied, doubted, other arithmetic
    "2 + 3 = 6 is wrong",
    "Is 2 + 3 = 6?",
    "we would have 2 + 3 = 6",
    r"5 + 4 = 2 \pmod{7}",
    "in base 8, 5 + 4 = 11",
    r"5_8 + 4_8 = 11_8",
]


@pytest.mark.parametrize("text", HOLDS)
def test_an_equation_that_holds(text: str) -> None:
    found = equations(text)
    assert found and all(e.holds for e in found), found


@pytest.mark.parametrize("text", WRONG)
def test_an_equation_that_is_wrong(text: str) -> None:
    assert not all(e.holds for e in equations(text))


@pytest.mark.parametrize("text", NOT_READ)
def test_nothing_is_said_of_what_is_not_read(text: str) -> None:
    assert all(e.holds for e in equations(text))


def test_where_an_equation_is() -> None:
    text = "She has 2 + 3 = 5 pens and 4*4 = <<4*4=17>>16 books."
    found = equations(text)
    assert [(text[e.start : e.end], e.holds) for e in found] == [
        ("2 + 3 = 5", True),
        ("4*4 = <<4*4=17>>16 books", True),
        ("4*4=17", False),
    ]


def test_a_chain_is_compared_side_by_side() -> None:
    assert [e.holds for e in equations("2 * 6 = 12 = 3 * 4 = 13")] == [True, True, False]


def test_what_is_beyond_the_limits_is_not_read() -> None:
    assert equations("(" * 9 + "1 + 1" + ")" * 9 + " = 3") == []
    assert equations("1 + " * 80 + "1 = 3") == []
    assert equations("9^999 = 3") == [] and equations("99! = 3") == []
    assert equations("-" * MAX_TEXT + " 1 + 1 = 3") == []


@pytest.mark.parametrize(
    "piece",
    [
        *("1 + ", "1", "(", ")", "- ", "1 = ", "1,000,", "0.", "1:", "{", r"\frac{", "a ", "1 a a a ", "<<1=1>>", "2^"),
        *("1/", "= ", "\n= ", "\n- ", r"\text{", "of ", "5% of ", ".1", "00", "**", "$", "¼", "²"),
    ],
)
def test_a_long_text_ends(piece: str) -> None:
    """In a fraction of a second; the square of its length would take minutes."""
    began = time.process_time()
    equations(piece * (MAX_TEXT // len(piece)))
    assert time.process_time() - began < 20
