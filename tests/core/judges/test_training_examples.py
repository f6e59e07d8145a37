"""Examples for judges: how solutions are spoiled, and the verdicts of another judge."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge_training import CorruptionSettings
from sgpo_core.judges.training_examples import (
    LabeledItem,
    chains_example,
    chains_label,
    cut_off,
    from_rollouts,
    garbage_line,
    misplaced_line,
)
from sgpo_core.storage import rollout_table
from sgpo_core.types import Judgment, Problem, Rollout, Verdict
from tests.records import group, rollout

# 57 + 68: 7 + 8 = 15, carry 1; 5 + 6 + 1 = 12; answer 125.
PROBLEM = Problem(
    "p", "Compute 57 + 68.\n", "125", "Step 1: 7 + 8 + 0 = 15\nStep 2: 5 + 6 + 1 = 12\nAnswer: \\boxed{125}"
)
SLIP = "Step 1: 7 + 8 + 0 = 15\nStep 2: 5 + 6 + 0 = 11\nAnswer: \\boxed{115}"


@pytest.mark.parametrize(
    ("response", "truncated", "step", "wrong_from"),
    [
        (PROBLEM.reference, False, None, None),
        (SLIP, False, 2, len("Step 2: 5 + 6 + ")),  # the digit behind is 0, not 1
        (SLIP, True, 2, len("Step 2: 5 + 6 + ")),
        ("Step 1: 7 + 8 + 0 = 15\nStep 2: 5", True, None, None),  # the step that was cut off is not judged
        ("Step 1: 7 + 8 + 0 = 1\nStep 2: 5 + 6 + 1 = 12\n", False, 1, len("Step 1: 7 + 8 + 0 = 1")),  # ends too early
        ("Let me think.\n" + SLIP, False, 1, 0),  # an opening remark is a step of its own, and not the first line
    ],
)
def test_labels(response: str, truncated: bool, step: int | None, wrong_from: int | None) -> None:
    example = chains_label(PROBLEM, response, truncated)
    assert (example.first_error_step, example.wrong_from) == (step, wrong_from)


def test_examples_are_those_of_their_seed() -> None:
    def some(seed: int) -> list[LabeledItem]:
        rng = random.Random(seed)
        return [chains_example(rng, 6, 0.9, CorruptionSettings()) for _ in range(200)]

    assert some(1) == some(1) != some(2)
    found = {example.first_error_step for example in some(1)}
    assert found == {None, 1, 2, 3, 4, 5, 6, 7}


def test_without_corruption_every_example_is_right() -> None:
    none = CorruptionSettings(right=1, misplaced_line=0, cut_off=0, garbage_line=0)
    rng = random.Random(0)
    for example in (chains_example(rng, 3, 0.5, none) for _ in range(50)):
        assert example.first_error_step is None
        assert example.item.text == example.item.problem.reference


def test_edits_of_the_form() -> None:
    lines = ["a\n", "b\n", "c"]
    seen = {tuple(misplaced_line(lines, random.Random(i))) for i in range(60)}
    assert seen == {("b\n", "c"), ("a\n", "c"), ("a\n", "a\n", "b\n", "c"), ("a\n", "b\n", "b\n", "c")}
    assert {len(cut_off(lines, random.Random(i))) for i in range(20)} == {1, 2}
    for i in range(20):
        spoiled = garbage_line(lines, random.Random(i))
        assert len(spoiled) == 4
        assert [line for line in spoiled if line in lines] == lines


def rollouts(path: Path) -> Path:
    """Six rows: a verdict, none found, an abstention, one not judged, one whose steps don't fit, a step too many."""

    def judged(sample: int, text: str, verdict: Verdict | None, *ends: int) -> Rollout:
        judgment = None if verdict is None else Judgment(verdict)
        return rollout(sample, text=text, step_ends=ends, judgment=judgment)

    ends = (23, 46, len(SLIP))
    rows = [
        judged(0, SLIP, Verdict(2), *ends),
        judged(1, str(PROBLEM.reference), Verdict(None), *ends),
        judged(2, SLIP, Verdict.abstain("timeout"), *ends),
        judged(3, SLIP, None, *ends),
        judged(4, SLIP, Verdict(1), 23, 200),
        judged(5, SLIP, Verdict(4), *ends),
    ]
    rollout_table.write(path, [group(0, rows, PROBLEM)])
    return path


def test_verdicts_of_another_judge(tmp_path: Path) -> None:
    found = from_rollouts([rollouts(tmp_path / "rollouts.parquet")])
    assert [e.first_error_step for e in found.examples] == [2, None]
    assert found.examples[0].item == chains_label(PROBLEM, SLIP).item
    assert found.unjudged == 2
    assert [bad.partition("parquet ")[2] for bad in found.bad] == [
        f"row 5: step_ends [23, 200] do not cut a response of {len(SLIP)} characters",
        "row 6: first_error_step 4 of 3 steps",
    ]


def test_a_file_without_verdicts_names_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    pq.write_table(rollout_table.to_table([group(0, [rollout()])], ["prompt", "response"]), path)
    assert "no column truncated, step_ends, first_error_step, verdict_status" in from_rollouts([path]).bad[0]
    with pytest.raises(ConfigError, match=r"data\.rollouts"):
        from_rollouts([tmp_path / "nowhere.parquet"])
