"""The reference judge, on a problem with a worked solution in our own words: 5 bags of 6 apples, 4 are eaten, the rest
is shared by 2: 30, 26, 13."""

from __future__ import annotations

import pytest

from sgpo_core.config.data import DataSettings
from sgpo_core.data.problems import as_problem, load_problems
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.reference import reference
from sgpo_core.types import Problem, Verdict

PROMPT = "Ann buys 5 bags with 6 apples each. She eats 4, and shares the rest with Bob. How many has Bob?"
WORKED = "The bags hold 5*6=<<5*6=30>>30 apples.\nShe keeps 30-4=<<30-4=26>>26.\nBob has 26/2=<<26/2=13>>13.\n#### 13"


def first_error(text: str, worked: str | None = WORKED) -> int | None:
    [judgment] = reference([Item(Problem("p", PROMPT, "13", worked), tuple(segment(text)))])
    assert not judgment.verdict.abstained
    return judgment.verdict.first_error_step


@pytest.mark.parametrize(
    ("text", "step"),
    [
        # the worked solution's answer
        ("1. 5 * 6 = 30\n2. 30 - 4 = 26\n3. 26 / 2 = 13\nSo \\boxed{13}", None),
        ("She has 26 apples. Bob gets half, which is 13.", None),
        ("1. 5 * 6 = 31\n2. 31 - 5 = 26\n3. 26 / 2 = 13\nSo \\boxed{13}", 1),  # by a false equation
        # where it leaves it
        ("1. 5 * 6 = 30\n2. 30 - 4 = 26\n3. 26 - 2 = 24\nSo \\boxed{24}", 3),  # 24 is in neither
        ("1. 5 * 6 = 30\n2. 30 - 4 = 25\n3. 25 / 5 = 5\nSo \\boxed{5}", 2),  # false
        ("1. 5 * 6 = 30\n2. 30 - 4 = 26\nThus \\boxed{26}", 3),  # it stops short: right as far as it goes
        ("1. 5 + 6 = 11\n2. 11 - 4 = 7\nSo \\boxed{7}", 1),
        # steps that reach nothing
        ("1. There are 5 bags.\n2. There are 6 apples.\n3. She eats 4.\nSo \\boxed{4}", 1),
        ("1. 5 * 6 = 30\n2. It is 30.\n3. It is 30.\n4. It is 30.\nSo \\boxed{30}", 2),
        ("Let me think.\n\nLet me think again.\n\n5 * 6 = 30.\n\nSo \\boxed{30}", 4),
        ("A.\n\nB.\n\nC.\n\n5 * 6 = 30.\n\nSo \\boxed{30}", 1),  # three idle steps: nobody knows what they are for
        ("2 things.\n\n100 percent.\n\n1 more.\n\nSo \\boxed{9}", 1),  # numbers that everybody has
        # numbers of steps are no numbers, nor are those that anybody has
        ("Step 1: 5 * 6 = 30\nStep 2: 30 - 4 = 26\nStep 3: half of 100% of it is \\boxed{7}", 3),
    ],
)
def test_first_wrong_step(text: str, step: int | None) -> None:
    assert first_error(text) == step


def test_a_number_that_nobody_has_is_not_read() -> None:
    """Python refuses to read integers of more than 4,300 digits."""
    assert first_error("5 * 6 = 30.\n\nIt is " + "1" * 5000 + ".\n\nSo \\boxed{7}") == 2


def test_decimals_at_the_beginning_and_numbers_behind_the_box() -> None:
    problem = Problem("p", "A pen costs 3.5 dollars. What do 2 cost, and 6 dollars more?", "13", "3.5*2=7\n7+6=13")
    for text, step in (
        ("3.5 * 2 = 7 dollars.\n\n7 + 6 is \\boxed{12}", 2),
        ("3.5 * 2 = 7 dollars.\n\n7 + 6 is \\boxed{12} and not 13", 2),
        ("3.5 * 2 = 7 dollars.\n\n7 + 6 is \\boxed{13} dollars", None),
    ):
        [judgment] = reference([Item(problem, tuple(segment(text)))])
        assert judgment.verdict == Verdict(step)


# All numbers of the first two lines are given.
SUM = Problem(
    "p",
    "7 + 1 - 3 + 9 - 6 + 8 + 5 =",
    "21",
    "7 + 1 = 8\n8 - 3 = 5\n5 + 9 = 14\n14 - 6 = 8\n8 + 8 = 16\n16 + 5 = 21\n#### 21",
)
NEGATIVE = Problem("p", "4 - 9 - 2 + 8 - 7 =", "-6", "4 - 9 = -5\n-5 - 2 = -7\n-7 + 8 = 1\n1 - 7 = -6\n#### -6")


@pytest.mark.parametrize(
    ("problem", "text", "step"),
    [
        (SUM, "7 + 1 = 8\n8 - 3 = 5\n5 + 9 = 15\n\\boxed{15}", 3),
        (SUM, "7 + 1 = 8\n8 + 5 = 13\n\\boxed{13}", 2),
        (SUM, "7 + 1 = 8\n8 - 6 = 2\n\\boxed{2}", 2),  # true, and of no use
        (SUM, "7 + 1 = 8\n7 + 1 = 8\n7 + 1 = 8\n\\boxed{9}", 2),  # once is enough
        (SUM, "8 - 7 = 1\n9 - 1 = 8\n\\boxed{9}", 1),  # the same numbers, but another equation
        (SUM, "We get 14.\n5 + 9 = 14\n\\boxed{9}", 2),  # to say it and to write it is one step forward
        (SUM, "A\n7 + 1 = 8\nB\n8 - 3 = 5\n\\boxed{9}", 5),
        (SUM, "A\n7 + 1 = 8\nB\n8 - 3 = 5\nC\n5 + 9 = 14\n\\boxed{9}", 5),  # three idle steps, wherever
        (NEGATIVE, "4 - 9 = -5\n-5 - 2 = -7\n\\boxed{-7}", 3),
        (NEGATIVE, "4 - 9 = -5\n-5 - 2 = -6\n-6 + 8 = 2\n\\boxed{2}", 2),
        (NEGATIVE, "4 - 9 = -5\n9 - 4 = 5\n\\boxed{5}", 2),
        (NEGATIVE, "4 - 9 = -5\n-5 - 2 = -7\n-7 + 8 = 1\n1 - 7 = -6\n\\boxed{6}", 5),
        (NEGATIVE, "4 - 9 = -5\n-5 - 2 = -7\n-7 + 8 = 1\n1 - 7 = -6\n\\boxed{-6}", None),
    ],
)
def test_equations_whose_numbers_may_all_be_given(problem: Problem, text: str, step: int | None) -> None:
    [judgment] = reference([Item(problem, tuple(segment(text)))])
    assert judgment.verdict == Verdict(step)


def test_on_sums_it_finds_where_a_response_stops_and_where_it_slips() -> None:
    sums = DataSettings(source="reasoning_gym", subset="chain_sum", task={"min_terms": 6, "max_terms": 6}, count=50)
    for row in load_problems(sums):
        problem = as_problem(row)
        lines = (problem.reference or "").splitlines()[:-1]
        for k in range(1, len(lines)):
            before, result = lines[k].rsplit("= ", 1)
            slip = f"{before}= {int(result) + 1}"
            for text in ([*lines[:k], "\\boxed{0.5}"], [*lines[:k], slip, "\\boxed{0.5}"]):
                [judgment] = reference([Item(problem, tuple(segment("\n".join(text))))])
                assert judgment.verdict == Verdict(k + 1), text


def test_numbers_of_steps_in_the_worked_solution_are_not_reached_by_counting() -> None:
    worked = "Step 1: 5*6=30\nStep 2: 30-4=26\nStep 3: 26/2=13"
    assert first_error("I count 1.\n\nI count 2.\n\nI count 3.\n\nSo \\boxed{9}", worked) == 1


def test_words_of_the_problem_are_numbers() -> None:
    prompt = "Ann has three dozen eggs and sells half. How many are left?"
    [judgment] = reference(
        [Item(Problem("p", prompt, "18", "3*12=36\n36/2=18"), tuple(segment("1. 3 * 12 = 36\n2. 9")))]
    )
    assert judgment.verdict == Verdict(2)


@pytest.mark.parametrize("worked", [None, "", "By symmetry."])
def test_it_abstains_without_numbers_to_compare_with(worked: str | None) -> None:
    [judgment] = reference([Item(Problem("p", PROMPT, "13", worked), tuple(segment("1. 5 * 6 = 30\n2. 4")))])
    assert judgment.verdict.abstained and "data.reference_column" in judgment.verdict.reason


def test_nothing_to_read() -> None:
    assert reference([Item(Problem("p", PROMPT, "13", WORKED), ())])[0].verdict.abstained
