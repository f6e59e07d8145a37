"""Engines of the judges `trained` and `llm`: Ray actors that are started once and kept like those of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import ray

from sgpo_core.config.base import ConfigError, fingerprint
from sgpo_core.config.judge import JudgeEngineSettings
from sgpo_core.judges.chat import ChatReply, ChatRequest
from sgpo_core.judges.control_tokens import NO_CONTROLS, ControlTokens
from sgpo_core.storage.weights import weights_hash
from tasks.engines import cluster
from tasks.engines.actors import local_folder, one_node, ready_in, remote_actor
from tasks.engines.faults import EngineLost, answers
from tasks.engines.placement import check_model, release, seats
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
    what = f"{settings.actors} judge engines x {settings.gpus} GPUs (judge.engine.actors, .gpus)"
    places = seats([settings.gpus] * settings.actors, what)
    variables = vllm_environment(settings.threads, local_folder())
    classes = [remote_actor(judge_worker.JudgeWorker, seat, variables, CALLS) for seat in places]
    actors = tuple(actor.remote(model, settings) for actor in classes)
    try:
        answers({a.chat.remote([]): f"judge engine {i}" for i, a in enumerate(actors)}, _DEADLINE_S)  # all have started
    except BaseException as error:
        for a in actors:
            ray.kill(a)
        release(places)
        if isinstance(error, (ray.exceptions.RayError, EngineLost)):
            raise ConfigError(f"the engines of judge.model={model} did not start: {cluster.cause(error)}") from error
        raise
    return actors
