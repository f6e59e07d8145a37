"""Where a response says its answer, in each of the forms."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from sgpo_core.config.data import AnswerForm
from sgpo_core.data.format_gate import malformed
from sgpo_core.data.worked_solutions import as_response
from sgpo_core.grading.final_answers import final_answers
from sgpo_core.grading.grader import AnswerGrader, extract_answer
from sgpo_core.types import Outcome, Problem

GSM8K = Problem(
    id="gsm8k-1",
    prompt="Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes. How much did she earn?",
    answer="10",
    reference="Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\n"
    "Working 50 minutes, she earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("boxed", "So \\boxed{5}.", "5"),
        ("boxed", "So 5.\n#### 5", None),
        ("hashes", "2 + 3 = 5\n#### 5", "5"),
        ("hashes", "#### 1\nno, wait\n#### 1,234 ", "1,234"),
        ("hashes", "#### \\boxed{144}", "144"),
        ("hashes", "a #### 5", None),  # not a line of its own
        ("hashes", "####", None),
        ("phrase", "The answer is 5.", "5"),
        ("phrase", "the final answer is: 3.5 dollars", "3.5 dollars"),
        ("phrase", "**Answer:** 18", "18"),
        ("phrase", "So the answer is $\\boxed{-7}$. We are done.", "-7"),
        ("phrase", "The answer is 5. That is more than 3.", "5"),
        ("phrase", "The answer is 3.5. Check it.", "3.5"),
        ("phrase", "Answering this takes time: 7", None),
        ("any", "#### 4\nThe answer is 3. So \\boxed{5}", "5"),
        ("any", "The answer is 3.\n#### 4", "4"),
        ("any", "The answer is 3.", "3"),
        ("any", "I do not know.", None),
    ],
)
def test_what_is_said(form: AnswerForm, text: str, said: str | None) -> None:
    assert extract_answer(text, form) == said


def test_a_box_inside_a_box_and_one_that_never_closes() -> None:
    found = final_answers("\\boxed{a \\boxed{b}} \\boxed{c", "boxed")
    assert [(answer.start, answer.text) for answer in found] == [(0, "a \\boxed{b}"), (9, "b"), (20, None)]
    assert extract_answer("\\boxed{a \\boxed{b}} \\boxed{c") == "b"


def test_the_form_decides_what_is_correct_and_what_is_malformed() -> None:
    response = "12 / 60 = 0.2 a minute\n0.2 * 50 = 10\n#### 10"
    with AnswerGrader() as grader:
        assert [grader.grade([("10", response)], form)[0].outcome for form in ("boxed", "hashes", "phrase", "any")] == [
            Outcome.UNPARSABLE,
            Outcome.CORRECT,
            Outcome.UNPARSABLE,
            Outcome.CORRECT,
        ]
    assert malformed(response, form="hashes") is None
    assert malformed(response) == "no_answer"
    assert malformed(response + "\n#### 11", form="hashes") == "several_answers"
    assert malformed("1. It is:\n#### 10\n2. 0.2 * 50 = 10", form="hashes") == "early_answer"


@pytest.mark.parametrize(
    ("form", "last"),
    [("boxed", "The answer is \\boxed{10}."), ("hashes", "#### 10"), ("phrase", "The answer is 10.")],
)
def test_a_worked_solution_becomes_a_response(form: AnswerForm, last: str) -> None:
    text = as_response(replace(GSM8K, answer_form=form))
    assert text is not None
    assert text.splitlines() == [
        "Weng earns 12/60 = $0.2 per minute.",
        "Working 50 minutes, she earned 0.2 x 50 = $10.",
        last,
    ]
    assert extract_answer(text, form) == "10"


def test_a_solution_that_boxes_its_answer_stays_as_it_is() -> None:
    solution = "First, $2 + 3 = 5$.\n\nSo it is $\\boxed{5}$."
    assert as_response(replace(GSM8K, answer="5", reference=solution)) == solution


@pytest.mark.parametrize("reference", [None, "", "\\boxed{1} and \\boxed{2}"])
def test_what_is_no_worked_solution_is_none(reference: str | None) -> None:
    assert as_response(replace(GSM8K, reference=reference)) is None


@pytest.mark.parametrize("piece", ["#### ", "answer is ", "\\boxed{", "{", "answer: \\boxed{1}", "a. "])
def test_time_is_linear(piece: str) -> None:
    def seconds(times: int) -> float:
        start = time.thread_time()
        final_answers(piece * times, "any")
        return time.thread_time() - start

    assert min(seconds(80_000) for _ in range(3)) < 100 * max(1e-3, min(seconds(8_000) for _ in range(3)))
