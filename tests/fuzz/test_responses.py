"""What a policy writes, whatever it is: cut into steps, gated, graded, judged, without an exception, in linear time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_core.config.data import AnswerForm
from sgpo_core.data.format_gate import malformed
from sgpo_core.data.segmentation import final_part, segment
from sgpo_core.grading.answer_forms import canonical, skeleton
from sgpo_core.grading.final_answers import MAX_ANSWER_CHARACTERS, final_answers
from sgpo_core.grading.grader import AnswerGrader, _quick_outcome, extract_answer
from sgpo_core.grading.numerals import numeral
from sgpo_core.judges.base import Item, Judge
from sgpo_core.judges.chat import after_thinking
from sgpo_core.judges.control_tokens import ControlTokens
from sgpo_core.judges.equations import equations
from sgpo_core.judges.prompts import parse
from sgpo_core.judges.reference import reference
from sgpo_core.judges.rule import rule
from sgpo_core.judges.sanitize import sanitize
from sgpo_core.types import Outcome, Problem
from tasks.reports.trace_pieces import visible
from tests.fuzz.hostile import FRAGMENTS, answers, encodable, texts

_boxed = st.builds(lambda before, answer, after: f"{before}\\boxed{{{answer}}}{after}", texts, answers, texts)
responses = texts | _boxed
forms: st.SearchStrategy[AnswerForm] = st.sampled_from(["boxed", "hashes", "phrase", "any"])


@given(responses, st.booleans(), forms)
def test_steps_and_gate(text: str, truncated: bool, form: AnswerForm) -> None:
    steps = segment(text)
    assert "".join(step.text for step in steps) == (text if text.strip() else "")
    assert all(step.text == text[step.start : step.end] and step.text.strip() for step in steps)
    assert all(before.end == after.start for before, after in pairwise(steps))
    reason, final = malformed(text, truncated, form), final_part(text)
    found = [final + answer.start for answer in final_answers(text[final:], form)]
    passes = len(found) == 1 and steps[-1].start <= found[0] < len(text)
    assert reason is not None or (passes if not truncated else bool(steps))


@given(responses, forms)
def test_final_answers(text: str, form: AnswerForm) -> None:
    found = final_answers(text, form)
    assert all(0 <= a.start < b.start for a, b in pairwise(found))
    answer = extract_answer(text, form)
    assert answer is None or (0 < len(answer) <= MAX_ANSWER_CHARACTERS and answer in text and encodable(answer))


def _differ(one: str, other: str) -> bool:
    """Whether both are numbers, and not the same one."""
    a, b = numeral(one), numeral(other)
    return a is not None and b is not None and abs(a.value - b.value) > 1


@given(answers, answers)
def test_what_strings_decide_of_an_answer(gold: str, given_answer: str) -> None:
    expected, answer = canonical(gold)[:2000], canonical(given_answer[:MAX_ANSWER_CHARACTERS])
    outcome = _quick_outcome(expected, answer)
    assert outcome in (None, Outcome.CORRECT, Outcome.WRONG, Outcome.ERROR)
    gradable = 0 < len(expected) <= MAX_ANSWER_CHARACTERS
    assert (outcome is Outcome.ERROR) is not gradable
    assert not gradable or _quick_outcome(expected, f" {expected}") is Outcome.CORRECT
    same = skeleton(expected) == skeleton(answer) or "%" in expected + answer
    assert outcome is not Outcome.CORRECT or same or not _differ(expected, answer)


@pytest.fixture(scope="module")
def grader() -> Iterator[AnswerGrader]:
    with AnswerGrader(workers=1, deadline_s=0.5) as grader:
        yield grader


@settings(max_examples=settings.default.max_examples // 10)
@given(pairs=st.lists(st.tuples(answers, answers), min_size=1, max_size=3))
def test_a_grade_is_a_grade(grader: AnswerGrader, pairs: list[tuple[str, str]]) -> None:
    """The maths library in its child process, which is killed where it computes for too long."""
    start = time.monotonic()
    for grade in grader.grade([(gold, f"\\boxed{{{answer}}}") for gold, answer in pairs]):
        assert isinstance(grade.outcome, Outcome) and grade.reward == (grade.outcome is Outcome.CORRECT)
        assert (grade.extracted is None) <= (grade.outcome is Outcome.UNPARSABLE)
    assert time.monotonic() - start < 60  # three children that start anew, on a busy machine


@given(texts, texts, answers, st.none() | texts)
def test_judges_without_a_model(text: str, prompt: str, answer: str, worked: str | None) -> None:
    item = Item(Problem("p", prompt, answer, worked), tuple(segment(text)))
    for judge in (rule, reference):
        [judgment] = judge([item])
        step = judgment.verdict.first_error_step
        assert step is None or 1 <= step <= len(item.steps)
        assert not judgment.verdict.abstained or (step is None and judgment.verdict.reason)
    assert all(0 <= e.start < e.end <= len(text) for e in equations(text))


def _judged(text: str, judge: Judge) -> None:
    judge([Item(Problem("p", "1 + 1?", "2", "1 + 1 = 2"), tuple(segment(text)))])


CONTROLS = ControlTokens(["<|im_end|>", "PI:URL", "[gMASK]", "eop"])
READERS: dict[str, Callable[[str], object]] = {
    "segment": segment,
    "malformed": malformed,
    "final_answers": lambda text: final_answers(text, "any"),
    "extract_answer": lambda text: extract_answer(text, "any"),
    "canonical": lambda text: skeleton(canonical(text)),
    "sanitize": lambda text: sanitize(text, CONTROLS),
    "parse": lambda text: parse(text, 9),
    "after_thinking": lambda text: after_thinking(text, True),
    "rule": lambda text: _judged(text, rule),
    "reference": lambda text: _judged(text, reference),
    "visible": visible,
}


def _seconds(read: Callable[[str], object], text: str) -> float:
    start = time.thread_time()
    read(text)
    return time.thread_time() - start


def _is_linear(read: Callable[[str], object], unit: str, first: str = "", last: str = "") -> bool:
    """Whether a text four times as long takes about four times as long, not sixteen times. Where 3,000 characters take
    less than 0.06 s, as nearly all do, it is not asked."""
    short, long = (first + unit * (length // len(unit)) + last for length in (750, 3000))
    seconds = _seconds(read, long)
    return seconds < 0.06 or min(seconds, _seconds(read, long)) < 9 * _seconds(read, short)


@pytest.mark.parametrize("name", READERS)
def test_time_is_linear_in_any_piece(name: str) -> None:
    assert [piece for piece in FRAGMENTS if not _is_linear(READERS[name], piece, "x", "x")] == []


@given(
    st.sampled_from(sorted(READERS)),
    st.lists(st.sampled_from((*FRAGMENTS, *"ab1.,:;?#|[]()<>=+*/")), min_size=2, max_size=3).map("".join),
    st.sampled_from(["", "x", "Step 1: ", "\\boxed{"]),
    st.sampled_from(["", "x", "}", "</think>"]),
)
def test_time_is_linear_in_several(name: str, unit: str, first: str, last: str) -> None:
    assert _is_linear(READERS[name], unit, first, last)
