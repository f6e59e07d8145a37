"""What a judge of word problems is trained and tested on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge_training import JudgeTrainingConfig, load_judge_training
from tasks.supervised.judge_exercises import SolutionExercises, exercises_of
from tests.hub_sources import SAMPLE


def sampled(*overrides: str) -> JudgeTrainingConfig:
    """The preset `smol` on twelve problems, of which four or so are held out."""
    few = [f"data.source={SAMPLE / 'train.jsonl'}", "data.held_out=0.3", "batch_size=4"]
    return load_judge_training("smol", [*few, *overrides])


def test_a_round_has_every_problem_once_with_an_error_of_its_own() -> None:
    exercises = exercises_of(sampled())
    assert isinstance(exercises, SolutionExercises) and exercises.hostile() == []
    batches = exercises.batches(lambda example: True)
    tested = {example.item.problem.id for example in exercises.test(None)}
    rounds = len(exercises.train) // 4
    first, second = (
        [e for step in steps for e in batches(step)] for steps in (range(rounds), range(rounds, 2 * rounds))
    )
    for part in (first, second):
        ids = [example.item.problem.id for example in part]
        assert len(set(ids)) == len(ids) == 4 * rounds and tested.isdisjoint(ids)
    assert {e.item.text for e in first} != {e.item.text for e in second}
    assert batches(0) == exercises_of(sampled()).batches(lambda example: True)(0)
    assert exercises.test(None) == exercises_of(sampled()).test(None)


def test_what_an_error_makes_too_long_is_shown_without_it() -> None:
    """Here nothing with an error fits."""
    batches = exercises_of(sampled("data.corruption.right=0")).batches(lambda e: e.first_error_step is None)
    assert all(example.first_error_step is None for example in batches(0))


def test_what_can_not_be_learned_from_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"0 problems have a worked solution with calculator marks, such as <<48/2=24>>"
    ):
        exercises_of(sampled("data.reference_column=question"))
    with pytest.raises(ConfigError, match=r"max_length=384: 0 of \d+ examples fit into it, at least 4 have to"):
        exercises_of(sampled()).batches(lambda example: False)
    with pytest.raises(ConfigError, match="learns from one of them"):
        sampled(f"data.rollouts=[{tmp_path / 'rollouts.parquet'}]")


def test_only_chains_are_tested_with_a_policy() -> None:
    assert exercises_of(load_judge_training("tiny")).needs_policy
    assert not exercises_of(sampled()).needs_policy
