"""Worked solutions with an error that was put there: where it is, and what follows from it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from sgpo_core.config.judge_training import CorruptionSettings
from sgpo_core.judges.corrupted_solutions import Line, SolutionError, lines_of, misspelt, solution_example
from sgpo_core.judges.training_examples import LabeledItem
from sgpo_core.types import Problem

CLIPS = Problem(
    "clips",
    "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many altogether?",
    "72",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72",
)
PAY = Problem(
    "pay",
    "Weng earns $12 an hour.",
    "10",
    "Weng earns 12/60 = $<<12/60=0.2>>0.2.\nThat is 0.2 x 50 = $<<0.2*50=10>>10.",
)
RIGHT = [
    "Natalia sold 48/2 = 24 clips in May.",
    "Natalia sold 48+24 = 72 clips altogether.",
    "The answer is \\boxed{72}.",
]


def only(*errors: SolutionError, right: float = 0.0) -> CorruptionSettings:
    weights = {error.name.lower(): float(error in errors) for error in SolutionError}
    return CorruptionSettings(right=right).model_copy(update=weights)


def examples(settings: CorruptionSettings, count: int = 300) -> Iterator[tuple[list[str], LabeledItem]]:
    """Those of so many seeds without a label or an introduction, with their lines."""
    for seed in range(count):
        example = solution_example(random.Random(seed), CLIPS, PAY, settings)
        lines = [step.text.removesuffix("\n") for step in example.item.steps]
        if lines[0].startswith(("Natalia", "Weng", "That")):
            yield lines, example


def test_lines_and_their_calculations() -> None:
    assert lines_of(CLIPS) == [
        Line("Natalia sold 48/2 = ", "48/2", "24", " clips in May."),
        Line("Natalia sold 48+24 = ", "48+24", "72", " clips altogether."),
    ]
    assert lines_of(Problem("", "", "5", "She has 5.\n#### 5")) == lines_of(Problem("", "", "5")) == []


def test_a_right_one_is_the_worked_solution() -> None:
    for lines, example in examples(only(right=1.0)):
        assert lines == RIGHT
        assert (example.first_error_step, example.wrong_from) == (None, None)
        assert example.item.text == "\n".join(RIGHT)
    # An error that no solution can have, because none has a weight, is none.
    assert all(example.first_error_step is None for _, example in examples(only(), 20))


def test_the_lines_after_a_wrong_operation_follow_from_it() -> None:
    found = {tuple(lines): example for lines, example in examples(only(SolutionError.WRONG_OPERATION))}
    assert set(found) == {
        # 48 * 2 = 96, and 48 + 96 = 144; 48 - 24 = 24.
        (
            "Natalia sold 48*2 = 96 clips in May.",
            "Natalia sold 48+96 = 144 clips altogether.",
            "The answer is \\boxed{144}.",
        ),
        (
            "Natalia sold 48/2 = 24 clips in May.",
            "Natalia sold 48-24 = 24 clips altogether.",
            "The answer is \\boxed{24}.",
        ),
    }
    first, second = sorted(found)
    assert found[first].first_error_step == 1 and found[first].wrong_from == len("Natalia sold 48")
    assert found[second].first_error_step == 2 and found[second].wrong_from == len("Natalia sold 48")


def test_a_wrong_result_goes_on() -> None:
    for lines, example in examples(only(SolutionError.WRONG_RESULT)):
        wrong = example.first_error_step
        assert wrong in (1, 2) and lines[: wrong - 1] == RIGHT[: wrong - 1]
        if wrong == 1:
            may = int(lines[0].split(" = ")[1].split()[0])
            assert may != 24 and lines[0] == f"Natalia sold 48/2 = {may} clips in May."
            assert lines[1:] == [
                f"Natalia sold 48+{may} = {48 + may} clips altogether.",
                f"The answer is \\boxed{{{48 + may}}}.",
            ]
        else:
            total = int(lines[1].split(" = ")[1].split()[0])
            assert total != 72 and lines[2] == f"The answer is \\boxed{{{total}}}."


def test_a_wrong_operand_is_calculated_rightly() -> None:
    seen = set()
    for lines, example in examples(only(SolutionError.WRONG_OPERAND)):
        wrong = lines[example.first_error_step - 1] if example.first_error_step else ""
        calculation, result = wrong.removeprefix("Natalia sold ").split(" clips")[0].split(" = ")
        assert wrong not in RIGHT
        left, sign, right = calculation.partition("/" if "/" in calculation else "+")
        value = float(left) / float(right) if sign == "/" else float(left) + float(right)
        assert float(result) == pytest.approx(value, abs=0.005)
        seen.add(calculation)
    assert len(seen) > 10


def test_the_other_errors() -> None:
    early = {(*lines, e.first_error_step) for lines, e in examples(only(SolutionError.STOPS_EARLY))}
    assert early == {(RIGHT[0], "The answer is \\boxed{24}.", 2)}
    for lines, example in examples(only(SolutionError.WRONG_ANSWER)):
        assert lines[:2] == RIGHT[:2] and lines[2] != RIGHT[2] and example.first_error_step == 3
        assert example.wrong_from is not None and example.wrong_from >= len("The answer is \\boxed{")
    foreign = {"Weng earns 12/60 = $0.2.", "That is 0.2 x 50 = $10."}
    places = set()
    for lines, example in examples(only(SolutionError.FOREIGN_STEP)):
        assert example.first_error_step and lines.pop(example.first_error_step - 1) in foreign and lines == RIGHT
        assert example.wrong_from == 0
        places.add(example.first_error_step)
    assert places == {1, 2, 3}


def test_a_number_of_the_problem_is_not_taken_for_a_result() -> None:
    """The first line's result is 48, as the problem's own number: the second line keeps the latter."""
    twice = Problem("", "48 and 24 more. How much is it twice?", "96", "24 x 2 = <<24*2=48>>48\n48 x 2 = <<48*2=96>>96")
    for seed in range(60):
        example = solution_example(random.Random(seed), twice, PAY, only(SolutionError.WRONG_RESULT))
        if example.first_error_step == 1:
            assert "48 x 2 = 96" in example.item.text


@pytest.mark.parametrize("seed", range(40))
def test_labels_and_introductions_move_the_place_of_the_error(seed: int) -> None:
    example = solution_example(random.Random(seed), CLIPS, PAY, only(SolutionError.WRONG_OPERATION))
    assert example.first_error_step is not None and example.wrong_from is not None
    wrong = example.item.steps[example.first_error_step - 1].text
    assert wrong[: example.wrong_from].endswith("Natalia sold 48")
    assert "".join(step.text for step in example.item.steps) == example.item.text
    assert [step.start for step in example.item.steps][1:] == [step.end for step in example.item.steps][:-1]


@pytest.mark.parametrize("number", ["7", "10", "24", "0.2", "20.00", "1500", "9"])
def test_misspelt_numbers_are_other_numbers(number: str) -> None:
    found = {misspelt(number, random.Random(seed)) for seed in range(200)}
    assert number not in found and len(found) > 3
    assert all(float(other) >= 0 for other in found)
