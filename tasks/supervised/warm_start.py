"""Supervised start of a policy: from random weights on `chains`, or from a real model on worked solutions."""

from __future__ import annotations

import shutil
from typing import Any

from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.warm_start import WarmStartConfig
from sgpo_core.data.problems import request_seed
from sgpo_core.types import Problem
from tasks.data import encode_prompts, load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, engines_for
from tasks.engines.generation import Generated, generate_groups, group_requests
from tasks.engines.sync import sync_engines
from tasks.stage import Metrics
from tasks.supervised.lessons import Lessons, lessons_of
from tasks.supervised.loop import Course, Kept, train_until_good
from tasks.workers.rollout_worker import Sampling


def kept(config: WarmStartConfig) -> Kept:
    """Where the warm start lies, or will lie."""
    return Kept("warm-start", "warm-starts", config)


def train_policy(config: WarmStartConfig, base: str | None) -> dict[str, Any]:
    """Trains the model `base` (None: random weights) until the gate is passed and writes the policy, whole or not at
    all. Raises RuntimeError when the gate stays shut, ConfigError for data that nothing can be learned from."""
    result = kept(config)
    start = base or str(result.start)
    try:
        with result.tracked("supervised") as tracker:
            if base is None:
                save_random_policy(config, result.start)
            lessons = lessons_of(config, start)
            with engines_for(start, config.model, config.cluster) as engines:
                engines.on_all_ranks("setup", start, config.model, config.train, config.deepspeed, False)
                course = _course(config, lessons, engines, start)
                metrics = train_until_good(course, config.train, engines, tracker, "warm_start/loss", result.saved)
                return result.publish(engines, start, tracker, metrics)
    finally:
        shutil.rmtree(result.start, ignore_errors=True)


def _course(config: WarmStartConfig, lessons: Lessons, engines: Engines, start: str) -> Course:
    slip_rates = [lesson.slip_rate for lesson in config.curriculum for _ in range(lesson.steps)]

    def test(steps: int) -> Metrics:
        probe = encode_prompts(start, lessons.held_out[:1], config.model, config.max_tokens)[0]
        sync_engines(engines, steps, probe, config.cluster.probe_tolerance(config.model.dtype))
        responses = answer_each(
            engines, start, config.model, lessons.held_out, config.max_tokens, (config.seed, "gate", steps)
        )
        return lessons.measure(responses)

    return Course(
        title=f"warm start {config.preset}",
        steps=len(slip_rates),
        batch=lambda step: lessons.batch(step, slip_rates[min(step, len(slip_rates) - 1)]),
        test=test,
        gate=lessons.gate,
        threshold=lessons.threshold,
        more_steps=config.gate_steps,
        more_rounds=config.gate_rounds,
        advice=lessons.advice,
    )


def answer_each(
    engines: Engines,
    policy: str,
    model: ModelSettings,
    problems: list[Problem],
    max_tokens: int,
    seeds: tuple[int, str, int],
) -> list[Generated]:
    """One response of the policy that the engines hold to each of the problems, at temperature 1. `seeds` (seed,
    purpose, version) decide the sampling."""
    prompts = encode_prompts(policy, problems, model, max_tokens)
    requests = group_requests(prompts, 1, lambda g, s: request_seed(*seeds, problems[g].id, s))
    tokenizer = load_tokenizer(policy)
    sampling = Sampling(1.0, max_tokens, stop_ids(policy))
    return [response for [response] in generate_groups(engines, tokenizer, requests, sampling)]
