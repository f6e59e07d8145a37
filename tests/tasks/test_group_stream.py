"""Groups are graded and judged while others are still being generated."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.judges.base import Item
from sgpo_core.judges.rule import rule
from sgpo_core.types import Judgment, Problem, RolloutGroup, Verdict
from tasks.judges.group_judge import GroupJudge
from tasks.judges.group_stream import GroupStream
from tests.records import WRONG, rollout
from tests.records import group as group_of

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


def group(number: int, texts: Sequence[str]) -> RolloutGroup:
    return group_of(number, [rollout(text=text) for text in texts], PROBLEMS[number])


def test_every_wrong_response_of_an_all_negative_group_is_judged(grader: AnswerGrader) -> None:
    stream = GroupStream(grader, GroupJudge(rule, "all_negative"), calls=2)
    solved, empty = PROBLEMS[1].reference or "", " "
    stream.add(1, group(0, [wrong_at(PROBLEMS[0], 3), wrong_at(PROBLEMS[0], 7)]))
    stream.add(1, group(1, [solved, wrong_at(PROBLEMS[1], 2)]))  # one is correct: nobody is asked
    stream.add(1, group(2, [empty, wrong_at(PROBLEMS[2], 1)]))
    graded = stream.take_graded(1)
    correct = {number: [r.correct for r in group.rollouts] for number, group in graded.items()}
    assert correct == {0: [False, False], 1: [True, False], 2: [False, False]}
    first_errors = {key: j.verdict.first_error_step for key, j in stream.take_judgments(1).items()}
    assert first_errors == {(0, 0): 3, (0, 1): 7, (2, 0): None, (2, 1): 1}
    assert stream.take_graded(1) == {} and stream.take_judgments(1) == {}
    stream.close()


def test_judging_begins_before_the_last_group_is_there(grader: AnswerGrader) -> None:
    begun, go_on = threading.Event(), threading.Event()
    batches: list[int] = []

    def patient(items: Sequence[Item]) -> list[Judgment]:
        batches.append(len(items))
        begun.set()
        assert go_on.wait(30)
        return rule(items)

    judge = GroupJudge(patient, "all_incorrect")
    stream = GroupStream(grader, judge, calls=1)
    stream.add(1, group(0, [wrong_at(PROBLEMS[0], 3)]))
    assert begun.wait(30), "the judge waits for more"
    for number in range(1, 6):  # while it is busy
        stream.add(1, group(number, [wrong_at(PROBLEMS[number], number)]))
    stream.take_graded(1)
    go_on.set()
    first_errors = {number: j.verdict.first_error_step for (number, _), j in stream.take_judgments(1).items()}
    assert first_errors == {0: 3, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    assert batches == [1, 5], "what has gathered goes to the judge together"
    assert judge.take_seconds() > 0 and judge.take_seconds() == 0
    stream.close()


def test_two_iterations_at_a_time_are_kept_apart(grader: AnswerGrader) -> None:
    stream = GroupStream(grader, GroupJudge(rule, "all_negative"), calls=1)
    for iteration, step in ((1, 3), (2, 5)):  # the same numbers of groups
        for number in range(3):
            stream.add(iteration, group(number, [wrong_at(PROBLEMS[number], step)]))
    for iteration, step in ((2, 5), (1, 3)):
        assert sorted(stream.take_graded(iteration)) == [0, 1, 2]
        found = {key: j.verdict.first_error_step for key, j in stream.take_judgments(iteration).items()}
        assert found == {(0, 0): step, (1, 0): step, (2, 0): step}
    stream.close()


def test_a_judge_that_breaks_is_not_taken_for_one_that_found_nothing(grader: AnswerGrader) -> None:
    def broken(items: Sequence[Item]) -> list[Judgment]:
        raise OSError("the judge's engine is gone")

    stream = GroupStream(grader, GroupJudge(broken, "all_negative"), calls=1)
    stream.add(1, group(0, [wrong_at(PROBLEMS[0], 3)]))
    stream.take_graded(1)
    with pytest.raises(OSError, match="engine is gone"):
        stream.take_judgments(1)
    stream.close()


def test_a_saved_table_is_judged_as_the_stream_did_and_a_truncated_step_is_not_read() -> None:
    asked: list[Item] = []

    def noting(items: Sequence[Item]) -> list[Judgment]:
        asked.extend(items)
        return [Judgment(Verdict(1), votes=(Verdict(1), Verdict(None), Verdict.abstain("?")), prompt_tokens=5)] * len(
            items
        )

    text = wrong_at(PROBLEMS[0], 3)
    wrong = [rollout(text=text, grade=WRONG), rollout(text=text[:60], truncated=True, grade=WRONG)]
    known = {(0, 0): Judgment(Verdict(2))}
    [judged] = GroupJudge(noting, "all_negative").complete([group_of(0, wrong, PROBLEMS[0])], known)
    assert [len(item.steps) for item in asked] == [2], "row 0 was known; of row 1's three steps the last is cut off"
    judgments = [r.judgment for r in judged.rollouts]
    assert [j and j.verdict.first_error_step for j in judgments] == [2, 1]
    assert [j and len(j.votes) for j in judgments] == [0, 3] and [j and j.prompt_tokens for j in judgments] == [0, 5]
    assert [len(r.step_ends or ()) for r in judged.rollouts] == [7, 3]


def test_a_call_of_the_judge_has_an_end_however_many_are_to_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged is kept call by call, and a call that takes too long counts as lost."""
    monkeypatch.setattr("tasks.judges.group_judge._AT_ONCE", 3)
    sizes: list[int] = []

    def counting(items: Sequence[Item]) -> list[Judgment]:
        sizes.append(len(items))
        return [Judgment(Verdict(number)) for number, _ in enumerate(items)]

    wrong = [rollout(text=wrong_at(PROBLEMS[0], 3), grade=WRONG)] * 4
    groups = [group_of(n, wrong, PROBLEMS[0]) for n in range(2)]
    judged = GroupJudge(counting, "all_negative").complete(groups, {})
    assert sizes == [3, 3, 2]
    assert [r.judgment and r.judgment.verdict.first_error_step for g in judged for r in g.rollouts] == [0, 1, 2] * 2 + [
        0,
        1,
    ]
