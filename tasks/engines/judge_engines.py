"""Engines of the judges `trained` and `llm`: Ray actors that are started once and kept like those of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import ray

from sgpo_core.config.base import fingerprint
from sgpo_core.config.judge import JudgeEngineSettings
from sgpo_core.judges.chat import ChatReply, ChatRequest
from sgpo_core.judges.control_tokens import NO_CONTROLS, ControlTokens
from sgpo_core.storage.weights import weights_hash
from tasks.engines import cluster
from tasks.engines.actors import local_folder, one_node, ready_in, remote_actor
from tasks.engines.faults import answers
from tasks.engines.nodes import check_model, starting
from tasks.engines.placement import Seat, check_seats, judge_seats, leave_seats
from tasks.workers import judge_worker
from tasks.workers.vllm_process import vllm_environment

CALLS = 16  # that an engine answers at a time
_DEADLINE_S = 3600.0  # for a batch of verdicts


@dataclass(frozen=True)
class JudgeEngines:
    """A `Chat` over one or more actors. May be called from several threads: an actor answers `CALLS` calls at a time.
    `controls`: the control tokens of their tokenizer."""

    actors: tuple[Any, ...]
    controls: ControlTokens = NO_CONTROLS

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        if not requests:
            return []
        # Neighbors, which share a problem, stay together: its prefix is then computed once. The first words decide who
        # gets the first part, so that the next turn of a conversation goes where this one went.
        count, parts = len(self.actors), min(len(self.actors), len(requests))
        first_one = crc32(requests[0].messages[0].content.encode(errors="replace"))
        pending = {}
        for part, (begin, end) in enumerate(pairwise(len(requests) * i // parts for i in range(parts + 1))):
            number = (first_one + part) % count
            pending[self.actors[number].chat.remote(requests[begin:end])] = f"judge engine {number}"
        return [reply for replies in answers(pending, _DEADLINE_S) for reply in replies]


def judge_engines(model: str, settings: JudgeEngineSettings) -> JudgeEngines:
    """Running engines of the judge in the folder `model`, up until the outermost `cluster.keep_engines` is done.
    Raises ConfigError when they don't start."""
    key = f"judge-{fingerprint([weights_hash(Path(model)), settings.model_dump(mode='json')])}"
    actors = cluster.kept_actors(key, lambda: _ready(model, settings))
    [controls] = answers({actors[0].control_tokens.remote(): "judge engine 0"}, _DEADLINE_S)
    return JudgeEngines(actors, ControlTokens(controls))


def _ready(model: str, settings: JudgeEngineSettings) -> tuple[Any, ...]:
    with ready_in(f"judge engines ({settings.actors})"):
        return _start(model, settings)


def _start(model: str, settings: JudgeEngineSettings) -> tuple[Any, ...]:
    if not one_node():
        check_model(Path(model))
    with starting(f"the engines of judge.model={model}"):
        return _started(model, settings, judge_seats(settings))


def _started(model: str, settings: JudgeEngineSettings, seats: tuple[Seat, ...]) -> tuple[Any, ...]:
    variables = vllm_environment(settings.threads, local_folder())
    classes = [remote_actor(judge_worker.JudgeWorker, seat, variables, CALLS) for seat in seats]
    actors = tuple(actor.remote(model, settings) for actor in classes)
    try:
        asked = {a.chat.remote([]): f"judge engine {i}" for i, a in enumerate(actors)}
        answers(asked, _DEADLINE_S, check_seats)  # all have started
    except BaseException:
        for a in actors:
            ray.kill(a)
        leave_seats(settings, seats)
        raise
    return actors
