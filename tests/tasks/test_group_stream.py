"""Groups are graded and judged while others are still being generated."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from tasks.judges.open import Judging, Response

from sgpo_core.chains import problems as chains
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.judges.base import Item, rule
from sgpo_core.types import Judgement, Outcome, Problem, Verdict
from tasks.judges.group_stream import GroupStream

PROBLEMS = chains.make_problems(6, seed=5)


@pytest.fixture(scope="module")
def grader() -> Iterator[AnswerGrader]:
    with AnswerGrader(workers=1) as grader:
        yield grader


def wrong_at(problem: Problem, step: int) -> str:
    """The right solution with a wrong sum in one step, or a wrong answer line (step 7)."""
    lines = list(chains.solve(*(chains.operands(problem.prompt) or (0, 0))).lines)
    lines[step - 1] = f"Step {step}: 9 + 9 + 9 = 0\n" if step < 7 else "Answer: \\boxed{1}"
    text = "".join(lines)
    return text if step == 7 else text[: text.rindex("{")] + "{1}"


def group(number: int, texts: Sequence[str]) -> list[Response]:
    return [Response(number * len(texts) + i, text, truncated=False) for i, text in enumerate(texts)]


def test_every_wrong_response_of_an_all_negative_group_is_judged(grader: AnswerGrader) -> None:
    stream = GroupStream(grader, Judging(rule, "all_negative"), calls=2)
    solved, empty = PROBLEMS[1].reference or "", " "
    stream.add(PROBLEMS[0], group(0, [wrong_at(PROBLEMS[0], 3), wrong_at(PROBLEMS[0], 7)]))
    stream.add(PROBLEMS[1], group(1, [solved, wrong_at(PROBLEMS[1], 2)]))  # one is correct: nobody is asked
    stream.add(PROBLEMS[2], group(2, [empty, wrong_at(PROBLEMS[2], 1)]))
    grades = stream.take_grades()
    assert [row for row, grade in sorted(grades.items()) if grade.outcome is Outcome.CORRECT] == [2]
    first_errors = {row: j.verdict.first_error_step for row, j in stream.take_judgements().items()}
    assert first_errors == {0: 3, 1: 7, 4: None, 5: 1}
    assert stream.take_grades() == {} and stream.take_judgements() == {}
    stream.close()


def test_judging_begins_before_the_last_group_is_there(grader: AnswerGrader) -> None:
    begun, go_on = threading.Event(), threading.Event()
    batches: list[int] = []

    def patient(items: Sequence[Item]) -> list[Judgement]:
        batches.append(len(items))
        begun.set()
        assert go_on.wait(30)
        return rule(items)

    judging = Judging(patient, "all_incorrect")
    stream = GroupStream(grader, judging, calls=1)
    stream.add(PROBLEMS[0], group(0, [wrong_at(PROBLEMS[0], 3)]))
    assert begun.wait(30), "the judge waits for more"
    for number in range(1, 6):  # while it is busy
        stream.add(PROBLEMS[number], group(number, [wrong_at(PROBLEMS[number], number)]))
    stream.take_grades()
    go_on.set()
    first_errors = {row: j.verdict.first_error_step for row, j in stream.take_judgements().items()}
    assert first_errors == {0: 3, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    assert batches == [1, 5], "what has gathered goes to the judge together"
    assert judging.take_seconds() > 0 and judging.take_seconds() == 0
    stream.close()


def test_a_judge_that_breaks_is_not_taken_for_one_that_found_nothing(grader: AnswerGrader) -> None:
    def broken(items: Sequence[Item]) -> list[Judgement]:
        raise OSError("the judge's engine is gone")

    stream = GroupStream(grader, Judging(broken, "all_negative"), calls=1)
    stream.add(PROBLEMS[0], group(0, [wrong_at(PROBLEMS[0], 3)]))
    stream.take_grades()
    with pytest.raises(OSError, match="engine is gone"):
        stream.take_judgements()
    stream.close()


def test_a_saved_table_is_judged_as_the_stream_did_and_a_truncated_step_is_not_read() -> None:
    asked: list[Item] = []

    def noting(items: Sequence[Item]) -> list[Judgement]:
        asked.extend(items)
        return [Judgement(Verdict(1), votes=(Verdict(1), Verdict(None), Verdict.abstain("?")), prompt_tokens=5)] * len(
            items
        )

    text = wrong_at(PROBLEMS[0], 3)
    table = {
        "problem_id": ["p"] * 2,
        "group": [0, 0],
        "prompt": [PROBLEMS[0].prompt] * 2,
        "answer": ["1"] * 2,
        "reference": [None] * 2,
        "response": [text, text[:60]],
        "truncated": [False, True],
        "outcome_reward": [0.0, 0.0],
    }
    columns = Judging(noting, "all_negative").columns(table, {0: Judgement(Verdict(2))})
    assert [len(item.steps) for item in asked] == [2], "row 0 was known; of row 1's three steps the last is cut off"
    assert columns["first_error_step"] == [2, 1]
    assert columns["verdict_votes"] == [[], [1, 0, -1]] and columns["verdict_tokens"] == [0, 5]
    assert [len(ends) for ends in columns["step_ends"]] == [7, 3]
