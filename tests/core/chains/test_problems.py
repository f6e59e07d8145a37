"""The embedded problem set: sums by hand, and seeds."""

from __future__ import annotations

import random

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.types import Problem

# 284471 + 936979, from the right: 1+9, 7+7, 4+9, 4+6, 8+3, 2+9, each carry written into the next column
EXAMPLE = (
    "Step 1: 1 + 9 + 0 = 10\n",
    "Step 2: 7 + 7 + 1 = 15\n",
    "Step 3: 4 + 9 + 1 = 14\n",
    "Step 4: 4 + 6 + 1 = 11\n",
    "Step 5: 8 + 3 + 1 = 12\n",
    "Step 6: 2 + 9 + 1 = 12\n",
    "Answer: \\boxed{1221450}",
)


def test_the_example_in_full() -> None:
    assert chains.prompt(284471, 936979) == "Compute 284471 + 936979.\n"
    assert chains.solve(284471, 936979).lines == EXAMPLE
    assert chains.solve(284471, 936979).text == "".join(EXAMPLE)


@pytest.mark.parametrize(
    ("a", "b", "sums", "answer"),
    [
        (12, 34, [(2, 4, 0, 6), (1, 3, 0, 4)], "46"),  # no carry at all
        (95, 17, [(5, 7, 0, 12), (9, 1, 1, 11)], "112"),  # a last carry
        (19, 11, [(9, 1, 0, 10), (1, 1, 1, 3)], "30"),  # none
        (999, 1, [(9, 1, 0, 10), (9, 0, 1, 10), (9, 0, 1, 10)], "1000"),  # different lengths, carried through
        (5, 4, [(5, 4, 0, 9)], "9"),
    ],
)
def test_carries(a: int, b: int, sums: list[tuple[int, int, int, int]], answer: str) -> None:
    steps = [f"Step {i}: {x} + {y} + {c} = {s}\n" for i, (x, y, c, s) in enumerate(sums, 1)]
    assert chains.solve(a, b).lines == (*steps, f"Answer: \\boxed{{{answer}}}")


def test_slip_rate_one_forgets_every_carry() -> None:
    # Column sums without a carry: 10, 14, 13, 10, 11, 11; their last digits and the last column's carry: 1 110340
    trace = chains.solve(284471, 936979, random.Random(5), slip_rate=1.0)
    sums = [(1, 9, 10), (7, 7, 14), (4, 9, 13), (4, 6, 10), (8, 3, 11), (2, 9, 11)]
    steps = [f"Step {i}: {x} + {y} + 0 = {s}\n" for i, (x, y, s) in enumerate(sums, 1)]
    assert trace.lines == (*steps, "Answer: \\boxed{1110340}")


@pytest.mark.parametrize("slip_rate", [0.3, 0.85])
def test_slip_rate_is_a_share_of_carries(slip_rate: float) -> None:
    # 111111 + 999999: a carry into each of columns 2 to 6 unless the one before forgot (1 + 9 + 0 still carries).
    rng, slips = random.Random(1), 0
    for _ in range(400):
        slips += sum(" + 0 = " in line for line in chains.solve(111111, 999999, rng, slip_rate).lines[1:6])
    assert slips / 2000 == pytest.approx(slip_rate, abs=0.05)  # 4.5 standard deviations of sqrt(.3 * .7 / 2000)


def test_noise_replaces_sums() -> None:
    rng = random.Random(0)
    right = "Step 1: 1 + 1 + 0 = 2\n"
    changed = sum(chains.solve(111111, 111111, rng, noise=1.0).lines[0] != right for _ in range(400))
    assert changed / 400 == pytest.approx(0.95, abs=0.05)  # one of 20 sums is the right one
    assert chains.solve(111111, 111111, rng, noise=0.0).lines[0] == right


@pytest.mark.parametrize("columns", [1, 3, 6, 12])
@pytest.mark.parametrize("carry_rate", [0.0, 0.7, 1.0])
def test_problems_are_what_they_say(columns: int, carry_rate: float) -> None:
    for problem in chains.make_problems(20, 3, columns, carry_rate):
        a, b = chains.operands(problem.prompt)
        assert len(str(a)) == len(str(b)) == columns
        assert int(problem.answer) == a + b
        assert problem.id == f"chains-{a}+{b}"
        assert problem.reference.endswith(f"Answer: \\boxed{{{a + b}}}")


@pytest.mark.parametrize("columns", [1, 3, 6, 12])
@pytest.mark.parametrize("carries", [False, True])
def test_all_columns_carry_or_none_does(columns: int, carries: bool) -> None:
    found = [chains.operands(p.prompt) for p in chains.make_problems(20, 3, columns, float(carries))]
    sums = [int(x) + int(y) for a, b in found for x, y in zip(str(a), str(b), strict=True)]
    assert {s >= 10 for s in sums} == {carries}


def test_problems_differ_and_are_decided_by_the_seed() -> None:
    first = chains.make_problems(500, 0)
    assert len({p.prompt for p in first}) == len({p.id for p in first}) == 500
    assert first == chains.make_problems(500, 0)
    assert {p.id for p in first} != {p.id for p in chains.make_problems(500, 1)}
    assert [p.id for p in first] != sorted(p.id for p in first)


def test_too_many_problems_and_columns_are_refused() -> None:
    assert len(chains.make_problems(45, 0, columns=1, carry_rate=1.0)) == 45  # 1 + ... + 9 pairs that carry
    with pytest.raises(ValueError, match="fewer than 46"):
        chains.make_problems(46, 0, columns=1, carry_rate=1.0)
    for columns in (0, 13):
        with pytest.raises(ValueError, match="columns must be between 1 and 12"):
            chains.make_problems(1, 0, columns)


@pytest.mark.parametrize(
    "text", ["Compute 1 + 2", "Compute 1 + 2.\nNow", "compute 1 + 2.", "Compute 1 - 2.", "Compute + 2.", ""]
)
def test_other_prompts_have_no_operands(text: str) -> None:
    assert chains.operands(text) is None


def test_training_and_evaluation_share_no_problem(tiny_sets: tuple[list[Problem], list[Problem]]) -> None:
    train, held_out = ({frozenset(chains.operands(p.prompt)) for p in problems} for problems in tiny_sets)  # b + a too
    assert not train & held_out


def test_the_answer_follows_from_the_steps() -> None:
    rng = random.Random(0)
    for _ in range(200):  # also from wrong ones
        assert chains.answer_follows_steps(chains.solve(284471, 936979, rng, 0.5, 0.3).text)
    assert chains.answer_follows_steps("".join(EXAMPLE) + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "".join(EXAMPLE).replace("1221450", "1221451"),
        "".join(EXAMPLE).replace("1221450", "221450"),  # without the last carry
        "".join(EXAMPLE).replace("= 15", "= 16"),  # the digit of a step
        "".join(EXAMPLE[:-1]),
        EXAMPLE[-1],
        "".join(EXAMPLE) + " I think",
        "",
    ],
)
def test_the_answer_does_not_follow(text: str) -> None:
    assert not chains.answer_follows_steps(text)
