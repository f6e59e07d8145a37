"""What a judge learns from, and what it is tested on: corrupted solutions of `chains`, corrupted worked solutions of a
data set, or another judge's verdicts on rollouts."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.judge_training import CorruptionSettings, JudgeTrainingConfig
from sgpo_core.data.problems import as_problem, named
from sgpo_core.judges.corrupted_solutions import lines_of, solution_example
from sgpo_core.judges.training_examples import LabeledItem, chains_example, chains_label, from_rollouts
from sgpo_core.storage.weights import weights_hash
from sgpo_core.types import Problem
from tasks.data import open_problems
from tasks.engines.cluster import rollout_engines
from tasks.supervised.warm_start import answer_each

_POLICY, _POLICY_TOKENS = ModelSettings(max_length=128), 96  # of `chains`; as conf/model/tiny.yaml, to share engines
_HOSTILE = 128  # examples with a line that is no step
log = logging.getLogger("sgpo.judge_training")

T = TypeVar("T")
Batches = Callable[[int], list[LabeledItem]]  # step -> its examples
Fits = Callable[[LabeledItem], bool]  # whether the judge can be shown it


class Exercises(Protocol):
    """`test`: what the gate is measured on; nothing of it is trained on. It is made of responses of a policy, whose
    folder is given, where it `needs_policy`. `hostile`: what is measured besides."""

    needs_policy: bool

    def batches(self, fits: Fits) -> Batches: ...
    def test(self, policy: str | None) -> list[LabeledItem]: ...
    def hostile(self) -> list[LabeledItem]: ...


def exercises_of(config: JudgeTrainingConfig) -> Exercises:
    """Those of the settings. Raises ConfigError, before anything starts, for data that can't be learned from."""
    if config.data.rollouts:
        return VerdictExercises(config)
    return ChainsExercises(config) if config.data.source == "chains" else SolutionExercises(config)


class ChainsExercises:
    """Fresh corrupted solutions in every step; the test is on responses of a policy, labeled by the rule judge."""

    needs_policy = True

    def __init__(self, config: JudgeTrainingConfig) -> None:
        self.config = config

    def batches(self, fits: Fits) -> Batches:
        config = self.config
        return lambda step: self._made(f"judge/{config.seed}/{step}", config.batch_size, config.data.corruption)

    def test(self, policy: str | None) -> list[LabeledItem]:
        assert policy is not None
        config = self.config
        problems = chains.make_problems(config.gate_samples, seed=3, columns=config.data.columns)
        with rollout_engines(policy, weights_hash(Path(policy)), _POLICY, config.cluster) as engines:
            seed = (config.seed, "judge test", 0)
            responses = answer_each(engines, policy, _POLICY, problems, _POLICY_TOKENS, seed)
        items = [
            chains_label(problem, response.text, response.completion.truncated)
            for problem, response in zip(problems, responses, strict=True)
        ]
        return [labeled for labeled in items if labeled.item.steps]

    def hostile(self) -> list[LabeledItem]:
        garbage = self.config.data.corruption.model_copy(update={"garbage_line": 1.0})
        return self._made(f"judge garbage/{self.config.seed}", _HOSTILE, garbage)

    def _made(self, seed: str, count: int, corruption: CorruptionSettings) -> list[LabeledItem]:
        rng, data = random.Random(seed), self.config.data
        return [chains_example(rng, data.columns, data.carry_rate, corruption) for _ in range(count)]


class SolutionExercises:
    """Worked solutions, corrupted in another way in every round through them; the test is on problems held out."""

    needs_policy = False

    def __init__(self, config: JudgeTrainingConfig) -> None:
        self.config = config
        problems = [problem for row in open_problems(config.data) if lines_of(problem := as_problem(row))]
        self.train, self.held_out = split(config, problems, lambda problem: problem.prompt)
        if len(self.train) < config.batch_size or not self.held_out:
            raise ConfigError(
                f"data.source={config.data.source}: {len(problems)} problems have a worked solution with calculator "
                f"marks, such as <<48/2=24>>, of which data.held_out={config.data.held_out} leaves {len(self.train)} "
                f"to train and {len(self.held_out)} to test on: set data.reference_column to the column that holds "
                "such solutions, or change data.held_out"
            )

    def batches(self, fits: Fits) -> Batches:
        config, size = self.config, self.config.batch_size
        train = [problem for problem in self.train if fits(self._right(problem))]
        if len(train) < size:
            raise too_long(config, len(train), len(self.train), size)
        log.warning("%d problems; %d left out, too long for max_length=%d",
                    len(train), len(self.train) - len(train), config.max_length)  # fmt: skip

        def batch(step: int) -> list[LabeledItem]:
            rounds = in_rounds(train, f"judge/{config.seed}", step, size)
            made = ((problem, self._example(problem, f"{config.seed}/{step}", self.train)) for problem in rounds)
            # What an error has made too long is shown as it was.
            return [example if fits(example) else self._right(problem) for problem, example in made]

        return batch

    def test(self, policy: str | None) -> list[LabeledItem]:
        return [self._example(problem, "test", self.held_out) for problem in self.held_out[: self.config.gate_samples]]

    def hostile(self) -> list[LabeledItem]:
        return []

    def _example(self, problem: Problem, purpose: str, donors: Sequence[Problem]) -> LabeledItem:
        rng = random.Random(f"{purpose}/{problem.id}")
        return solution_example(rng, problem, rng.choice(donors), self.config.data.corruption)

    def _right(self, problem: Problem) -> LabeledItem:
        without = self.config.data.corruption.model_copy(update={"right": 1.0})
        return solution_example(random.Random(f"right/{problem.id}"), problem, problem, without)


class VerdictExercises:
    """The verdicts of another judge; the test is on problems held out."""

    needs_policy = False

    def __init__(self, config: JudgeTrainingConfig) -> None:
        self.config = config
        found = from_rollouts([Path(path) for path in config.data.rollouts])
        if len(found.bad) > config.data.max_bad_rows:
            raise ConfigError(
                f"data.rollouts: {len(found.bad)} broken rows, {config.data.max_bad_rows} are allowed "
                f"(data.max_bad_rows): {named(found.bad)}"
            )
        self.train, self.held_out = split(config, found.examples, lambda example: example.item.problem.prompt)
        if len(self.train) < config.batch_size or not self.held_out:
            raise ConfigError(
                f"data.rollouts: {len(found.examples)} verdicts ({found.unjudged} responses without one), of which "
                f"data.held_out={config.data.held_out} leaves {len(self.train)} to train and {len(self.held_out)} to "
                "test on: name more files, or change data.held_out"
            )
        log.warning("%d verdicts; left out: %d without one, %d broken %s",
                    len(found.examples), found.unjudged, len(found.bad), named(found.bad))  # fmt: skip

    def batches(self, fits: Fits) -> Batches:
        config, size = self.config, self.config.batch_size
        train = fitting(config, self.train, fits, size)
        return lambda step: in_rounds(train, f"judge/{config.seed}", step, size)

    def test(self, policy: str | None) -> list[LabeledItem]:
        return self.held_out[: self.config.gate_samples]

    def hostile(self) -> list[LabeledItem]:
        return []


def split(config: JudgeTrainingConfig, rows: Sequence[T], prompt: Callable[[T], str]) -> tuple[list[T], list[T]]:
    """(to train on, to test on), by problem: nothing about a problem of the test is trained on."""

    def held_out(row: T) -> bool:
        return random.Random(f"held out/{config.seed}/{prompt(row)}").random() < config.data.held_out

    return [row for row in rows if not held_out(row)], [row for row in rows if held_out(row)]


def in_rounds(rows: Sequence[T], seed: str, step: int, size: int) -> list[T]:
    """The rows of a step: rounds through all of them, each in an order of its own, whose last, partial batch is left
    out."""
    lap, place = divmod(step, len(rows) // size)
    order = random.Random(f"{seed}/{lap}").sample(range(len(rows)), len(rows))
    return [rows[i] for i in order[place * size : (place + 1) * size]]


def fitting(config: JudgeTrainingConfig, examples: Sequence[LabeledItem], fits: Fits, needed: int) -> list[LabeledItem]:
    """Those that leave room for a verdict. Raises ConfigError where fewer than `needed` do."""
    kept = [example for example in examples if fits(example)]
    if len(kept) < needed:
        raise too_long(config, len(kept), len(examples), needed)
    if len(kept) < len(examples):
        log.warning("%d of %d examples left out: too long for max_length=%d",
                    len(examples) - len(kept), len(examples), config.max_length)  # fmt: skip
    return kept


def too_long(config: JudgeTrainingConfig, fitting: int, of: int, needed: int) -> ConfigError:
    return ConfigError(
        f"max_length={config.max_length}: {fitting} of {of} examples fit into it, at least {needed} have to: raise it"
    )
