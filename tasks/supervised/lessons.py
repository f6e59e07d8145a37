"""What a supervised start learns from, and how it is tested: generated traces of `chains` with the habitual error, or
the worked solutions of a data set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.warm_start import WarmStartConfig
from sgpo_core.data.format_gate import well_formed
from sgpo_core.data.problems import as_problem
from sgpo_core.data.worked_solutions import as_response
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.rl.training_samples import TrainingSample
from sgpo_core.types import Problem
from tasks.data import encode_prompt, load_tokenizer, open_problems
from tasks.engines.generation import Generated
from tasks.stage import Metrics

Weighted = tuple[
    list[int], list[int], list[float]
]  # token ids of a prompt and of a text, a loss weight for each of its tokens


class Lessons(Protocol):
    """`held_out` problems are for the test alone; `gate` is the metric that `measure` has to bring to `threshold`."""

    held_out: list[Problem]
    gate: str
    threshold: float
    advice: str

    def batch(self, step: int, slip_rate: float) -> list[TrainingSample]: ...
    def measure(self, responses: Sequence[Generated]) -> Metrics: ...


def lessons_of(config: WarmStartConfig, policy: str) -> Lessons:
    """Those of the settings, for the tokenizer of the folder `policy`. Raises ConfigError for data that has none."""
    return ChainsLessons(config, policy) if config.data.source == "chains" else SolutionLessons(config, policy)


class ChainsLessons:
    """The format of `chains`, and to forget carries."""

    gate, advice = "warm_start/agreement", "add steps (curriculum, gate_rounds) or choose another seed"

    def __init__(self, config: WarmStartConfig, policy: str) -> None:
        self.config, self.tokenizer, self.threshold = config, load_tokenizer(policy), config.gate_agreement
        self.held_out = chains.make_problems(config.gate_samples, seed=2, columns=config.data.columns)

    def batch(self, step: int, slip_rate: float) -> list[TrainingSample]:
        """The prompt is not trained on, the answer line weighs `answer_weight`."""
        config, data = self.config, self.config.data
        rng = random.Random(f"warm-start/{config.seed}/{step}")
        rows = []
        for _ in range(config.batch_size):
            a, b = chains.sample_operands(rng, data.columns, data.carry_rate)
            lines = chains.solve(a, b, rng, slip_rate, config.noise).lines
            body = self.tokenizer("".join(lines[:-1]))["input_ids"]
            answer = [*self.tokenizer(lines[-1])["input_ids"], self.tokenizer.eos_token_id]
            weights = [1.0] * len(body) + [config.answer_weight] * len(answer)
            rows.append((self.tokenizer(chains.prompt(a, b))["input_ids"], [*body, *answer], weights))
        return supervised_samples(rows)

    def measure(self, responses: Sequence[Generated]) -> Metrics:
        right = [f"\\boxed{{{p.answer}}}" in r.text for p, r in zip(self.held_out, responses, strict=True)]
        return {
            "warm_start/agreement": float(np.mean([chains.answer_follows_steps(r.text) for r in responses])),
            "warm_start/accuracy": float(np.mean(right)),
        }


class SolutionLessons:
    """The worked solutions of a data set, in the form that the policy is asked for. Every epoch is a shuffle of its
    own; some problems are held out."""

    gate, advice = "warm_start/form", "add steps (curriculum, gate_rounds), or raise train.lr"

    def __init__(self, config: WarmStartConfig, policy: str) -> None:
        self.config, self.tokenizer, self.threshold = config, load_tokenizer(policy), config.gate_form
        problems = [as_problem(row) for row in open_problems(config.data)]
        random.Random(f"held out/{config.seed}").shuffle(problems)
        usable = [(problem, row) for problem in problems if (row := self._row(problem))]
        self.held_out = [problem for problem, _ in usable[: config.gate_samples]]
        self.rows = [row for _, row in usable[config.gate_samples :]]
        if len(self.rows) < config.batch_size:
            raise ConfigError(
                f"data.source={config.data.source}: of {len(problems)} problems {len(self.rows)} can be learned from, "
                f"beside gate_samples={config.gate_samples}: data.reference_column names the worked solutions, of at "
                f"most max_tokens={config.max_tokens} tokens, with one boxed answer or none"
            )

    def batch(self, step: int, slip_rate: float) -> list[TrainingSample]:
        """The prompt is not trained on; every token of the solutions weighs the same."""
        size, each = len(self.rows), self.config.batch_size
        places = range(step * each, (step + 1) * each)
        orders = {epoch: self._order(epoch) for epoch in {place // size for place in places}}
        return supervised_samples([self.rows[orders[place // size][place % size]] for place in places])

    def measure(self, responses: Sequence[Generated]) -> Metrics:
        with AnswerGrader() as grader:
            pairs = [(p.answer, r.text) for p, r in zip(self.held_out, responses, strict=True)]
            right = [grade.correct for grade in grader.grade(pairs, self.config.data.answer_form)]
        form = self.config.data.answer_form
        formed = [not r.completion.truncated and well_formed(r.text, False, form) for r in responses]
        return {"warm_start/form": float(np.mean(formed)), "warm_start/accuracy": float(np.mean(right))}

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.rows)))
        random.Random(f"warm-start/{self.config.seed}/{epoch}").shuffle(order)
        return order

    def _row(self, problem: Problem) -> Weighted | None:
        config, text = self.config, as_response(problem)
        if text is None:
            return None
        prompt = encode_prompt(self.tokenizer, problem, config.model)
        solution = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        fits = len(solution) <= config.max_tokens and len(prompt) + config.max_tokens <= config.model.max_length
        return (prompt, solution, [1.0] * len(solution)) if fits else None


def supervised_samples(rows: Sequence[Weighted]) -> list[TrainingSample]:
    """The samples of one optimizer step; all weights of the step are made to sum to 1."""
    total = sum(sum(weights) for _, _, weights in rows)
    nothing = np.zeros(0, np.float32)
    return [
        TrainingSample(
            np.asarray([*prompt, *text], np.int32), np.asarray(weights, np.float32) / total, nothing, nothing
        )
        for prompt, text, weights in rows
    ]
