"""Generated word problems: the same for the same seed, and never in both splits."""

from __future__ import annotations

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import DataSettings
from sgpo_core.data.problems import as_problem, load_problems
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.types import Problem


def generated(**settings: object) -> list[Problem]:
    rows = load_problems(DataSettings.model_validate({"source": "reasoning_gym", "count": 120, **settings}))
    return [as_problem(row) for row in rows]


def test_they_are_decided_by_the_seed_and_have_worked_solutions() -> None:
    problems = generated()
    assert problems == generated()
    assert {p.prompt for p in problems} != {p.prompt for p in generated(seed=1)}
    assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == 120
    assert all(p.reference and f"#### {p.answer}" in p.reference for p in problems)


def test_no_problem_is_of_both_splits_whatever_the_seeds() -> None:
    trained = {p.prompt for seed in range(5) for p in generated(seed=seed, subset="chain_sum", count=400)}
    tested = {p.prompt for seed in range(5) for p in generated(seed=seed, subset="chain_sum", count=40, split="test")}
    assert len(tested) > 100
    assert not trained & tested


def test_sums_have_the_running_totals_as_worked_solutions() -> None:
    """Of as many numbers, with as many digits, as `data.task` says; every total follows from the one before."""
    size = {"min_terms": 4, "max_terms": 4, "min_digits": 2, "max_digits": 2, "allow_negation": True}
    for problem in generated(subset="chain_sum", task=size):
        expression = problem.prompt.split(": ")[1].removesuffix(" =").split()
        *lines, answer = [line.split() for line in (problem.reference or "").splitlines()]
        assert answer == ["####", problem.answer]
        assert len(lines) == 3
        assert [lines[0][0], *(part for line in lines for part in line[1:3])] == expression
        assert all(result_of(*line[:3]) == int(line[4]) for line in lines)
        assert [line[0] for line in lines[1:]] + [problem.answer] == [line[4] for line in lines]
        assert all(len(number.lstrip("-")) <= 2 for number in expression[::2])


def result_of(left: str, sign: str, right: str) -> int:
    return int(left) + int(right) if sign == "+" else int(left) - int(right)


def test_their_answers_are_graded_as_correct() -> None:
    problems = generated(count=300, split="test")
    with AnswerGrader() as grader:
        grades = grader.grade([(p.answer, f"\\boxed{{{p.answer}}}") for p in problems])
    assert all(grade.correct for grade in grades)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"subset": "gsm_symbolc"}, "data.subset=gsm_symbolc: reasoning_gym has no such task; it has .*gsm_symbolic"),
        ({"subset": "chain_sum", "task": {"terms": 6}}, r"data.task={'terms': 6}: .* chain_sum .*argument 'terms'"),
        ({"subset": "chain_sum", "task": {"min_terms": 9}}, "AssertionError: max_terms must be >= min_terms"),
        ({"subset": "chain_sum", "task": {"min_terms": 2.5, "max_terms": 3.5}}, "non-integer"),
        ({"subset": "chain_sum", "task": {"size": 9}}, "leave out size; see data.seed and data.count"),
        ({"source": "chains", "task": {"min_terms": 9}}, "is for data.source=reasoning_gym"),
        ({"split": "validation"}, "data.split=validation: reasoning_gym has the splits train and test"),
    ],
)
def test_what_there_is_not_is_said(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        generated(**settings)
