"""Evaluation as data: which benchmarks, by which protocol, and the records that come out.

A protocol's id is a hash of all that decides a score besides the policy. Results with different ids are not compared:
`require_same` says what differs. The grader is part of it, but not of the id of the *generations*, which stay when only
the grader changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sgpo_core.config.base import fingerprint
from sgpo_core.config.data import BenchmarkSettings
from sgpo_core.config.evaluation import ChatTemplate, Dtype, EvaluationConfig
from sgpo_core.config.run import TrainingConfig
from sgpo_core.evaluation.scores import Scores
from sgpo_core.grading.grader import GRADER
from sgpo_core.types import Problem


@dataclass(frozen=True, slots=True)
class Protocol:
    """All that decides a score besides the policy. `problems` is a hash of their ids, prompts and gold answers."""

    benchmark: str
    problems: str
    prompt: str
    chat_template: ChatTemplate
    temperature: float
    top_p: float
    max_tokens: int
    k: int
    seed: int
    dtype: Dtype
    grader: str
    thinks: bool | None = None

    @property
    def id(self) -> str:
        """Ten hexadecimal digits, on every result."""
        return fingerprint(asdict(self))

    @property
    def generation_id(self) -> str:
        """The same without the grader: what the responses depend on."""
        return fingerprint(asdict(replace(self, grader="")))


def protocol(
    name: str, benchmark: BenchmarkSettings, config: EvaluationConfig, problems: Iterable[Problem]
) -> Protocol:
    """The protocol of one benchmark with the grader of today."""
    form = benchmark.data.answer_form
    return Protocol(
        benchmark=name,
        problems=fingerprint([(p.id, p.prompt, p.answer) for p in problems]),
        prompt=benchmark.prompt,
        chat_template=config.chat_template,
        thinks=config.thinks,
        temperature=benchmark.temperature,
        top_p=benchmark.top_p,
        max_tokens=benchmark.max_tokens,
        k=benchmark.k,
        seed=benchmark.seed,
        dtype=config.dtype,
        grader=GRADER if form == "boxed" else f"{GRADER}, answers in {form}",
    )


def protocol_in_training(config: TrainingConfig) -> str:
    """The same of a run's own evaluations, all benchmarks together: ten hexadecimal digits of what decides them besides
    the policy."""
    sets = {name: benchmark.model_dump(mode="json") for name, benchmark in config.eval.sets.items()}
    how = [GRADER, sets, config.sampling.max_tokens, config.model.dtype]
    model = config.model
    return fingerprint([*how, model.preamble, model.instruction, model.chat_template, model.thinks])


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one policy on one benchmark.

    weights: hash of the policy. per_problem: id -> share of correct responses, by which results are paired. seconds:
    of generation, without what was killed.
    """

    weights: str
    protocol: Protocol
    scores: Scores
    per_problem: Mapping[str, float]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "protocol_id": self.protocol.id}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Raises ValueError when the record's protocol id is not that of its protocol."""
        found = Protocol(**value["protocol"])
        if value["protocol_id"] != found.id:
            raise ValueError(f"protocol id {value['protocol_id']} is not that of the protocol beside it, {found.id}")
        return cls(value["weights"], found, Scores.from_json(value["scores"]), value["per_problem"], value["seconds"])


def require_same(ours: Protocol, theirs: Protocol) -> None:
    """Raises ValueError that names what differs between two protocols: their results can't be compared."""
    if ours.id == theirs.id:
        return
    left, right = asdict(ours), asdict(theirs)
    differences = [f"{name} {right[name]!r} -> {left[name]!r}" for name in left if left[name] != right[name]]
    raise ValueError(
        f"results of different protocols are not compared ({theirs.id}, {ours.id}): " + ", ".join(differences)
    )
