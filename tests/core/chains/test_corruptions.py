"""Every kind of error, where it can be, and that it is the first."""

from __future__ import annotations

import random

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.chains.corruptions import Error, corrupted, positions
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.rule import rule_judge
from sgpo_core.types import Problem


def test_where_an_error_can_be() -> None:
    # 19 + 11: 9 + 1 = 10, then 1 + 1 + 1 = 3; the only carry comes into the second column
    assert [positions(19, 11, error) for error in Error] == [[2], [1, 2], [1, 2], [3]]
    assert positions(12, 34, Error.FORGOTTEN_CARRY) == []


def test_a_forgotten_carry_by_hand() -> None:
    lines = corrupted(19, 11, Error.FORGOTTEN_CARRY, 2, random.Random(0))
    assert lines == ("Step 1: 9 + 1 + 0 = 10\n", "Step 2: 1 + 1 + 0 = 2\n", "Answer: \\boxed{20}")


def test_later_lines_go_on_from_the_written_ones() -> None:
    # 55 + 55 with 10 - 1 = 9 in the first column: no carry comes into the second, 5 + 5 + 0 = 10
    found = {corrupted(55, 55, Error.WRONG_SUM, 1, random.Random(seed)) for seed in range(20)}
    assert found == {
        (f"Step 1: 5 + 5 + 0 = {first}\n", f"Step 2: 5 + 5 + {first // 10} = {10 + first // 10}\n", answer)
        for first, answer in [(0, "Answer: \\boxed{100}"), (9, "Answer: \\boxed{109}"), (11, "Answer: \\boxed{111}")]
    }


def test_wrong_answers_by_hand() -> None:
    found = {corrupted(5, 4, Error.WRONG_ANSWER, 2, random.Random(seed))[1] for seed in range(200)}
    assert found == {f"Answer: \\boxed{{{digit}}}" for digit in range(9)}  # any digit but 9
    assert "Answer: \\boxed{0}" in {corrupted(5, 5, Error.WRONG_ANSWER, 2, random.Random(s))[1] for s in range(50)}


@pytest.mark.parametrize("error", Error)
def test_the_first_error_is_where_it_was_put(error: Error) -> None:
    rng = random.Random(0)
    for problem in chains.make_problems(40, 1):
        a, b = chains.operands(problem.prompt)
        right = chains.solve(a, b).lines
        for position in positions(a, b, error):
            lines = corrupted(a, b, error, position, rng, slip_rate=0.5)
            assert lines[: position - 1] == right[: position - 1]
            verdict = rule_judge(Problem("x", problem.prompt, ""), segment("".join(lines)))
            assert verdict.first_error_step == position
            follows = chains.answer_follows_steps("".join(lines))
            assert follows is (error is not Error.WRONG_ANSWER)
