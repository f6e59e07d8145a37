"""Supervised start of a small policy on `chains`: it learns the format, and the habitual error."""

from __future__ import annotations

import random
import shutil
from typing import Any

import numpy as np

from sgpo_core.chains import problems as chains
from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.warm_start import WarmStartConfig
from sgpo_core.data.problems import request_seed
from sgpo_core.rl.training_samples import TrainingSample
from sgpo_core.types import Problem
from tasks.data import encode_prompts, load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, engines_for
from tasks.engines.generation import Generated, generate_groups, group_requests
from tasks.engines.sync import sync_engines
from tasks.stage import Metrics
from tasks.supervised.loop import Course, Kept, train_until_good
from tasks.workers.rollout_worker import Sampling

MODEL = ModelSettings(max_length=128)  # as conf/model/tiny.yaml has it, so that engines are shared
_MAX_TOKENS = MODEL.max_length - 32


def kept(config: WarmStartConfig) -> Kept:
    """Where the warm start lies, or will lie."""
    return Kept("warm-start", "warm-starts", config)


def train_policy(config: WarmStartConfig, base: str | None) -> dict[str, Any]:
    """Trains until the gate is passed and writes the policy, whole or not at all. Raises RuntimeError when the gate
    stays shut."""
    result = kept(config)
    start = base or str(result.start)
    try:
        with result.tracked("supervised") as tracker:
            if base is None:
                save_random_policy(config, result.start)
            with engines_for(start, MODEL, config.cluster) as engines:
                engines.on_all_ranks("setup", start, MODEL, config.train, config.deepspeed, False)
                course = _course(config, engines, start)
                metrics = train_until_good(course, config.train, engines, tracker, "warm_start/loss")
                return result.publish(engines, start, tracker, metrics)
    finally:
        shutil.rmtree(result.start, ignore_errors=True)


def _course(config: WarmStartConfig, engines: Engines, start: str) -> Course:
    tokenizer = load_tokenizer(start)
    slip_rates = [lesson.slip_rate for lesson in config.curriculum for _ in range(lesson.steps)]

    def batch(step: int) -> list[TrainingSample]:
        return supervised_samples(config, tokenizer, slip_rates[min(step, len(slip_rates) - 1)], step)

    return Course(
        title=f"warm start {config.preset}",
        steps=len(slip_rates),
        batch=batch,
        test=lambda steps: _test(config, engines, start, steps),
        gate="warm_start/agreement",
        threshold=config.gate_agreement,
        more_steps=config.gate_steps,
        more_rounds=config.gate_rounds,
        advice="add steps (curriculum, gate_rounds) or choose another seed",
    )


def supervised_samples(config: WarmStartConfig, tokenizer: Any, slip_rate: float, step: int) -> list[TrainingSample]:
    """The traces of one optimizer step: the prompt is not trained on, the answer line weighs `answer_weight`, and all
    weights of the step sum to 1."""
    rng = random.Random(f"warm-start/{config.seed}/{step}")
    rows = []
    for _ in range(config.batch_size):
        a, b = chains.sample_operands(rng, config.columns, config.carry_rate)
        lines = chains.solve(a, b, rng, slip_rate, config.noise).lines
        prompt = tokenizer(chains.prompt(a, b))["input_ids"]
        body = tokenizer("".join(lines[:-1]))["input_ids"]
        answer = [*tokenizer(lines[-1])["input_ids"], tokenizer.eos_token_id]
        rows.append((prompt, [*body, *answer], [1.0] * len(body) + [config.answer_weight] * len(answer)))
    total = sum(sum(weights) for _, _, weights in rows)
    nothing = np.zeros(0, np.float32)
    return [
        TrainingSample(
            np.asarray([*prompt, *text], np.int32), np.asarray(weights, np.float32) / total, nothing, nothing
        )
        for prompt, text, weights in rows
    ]


def _test(config: WarmStartConfig, engines: Engines, start: str, steps: int) -> Metrics:
    """Samples held-out problems and measures what the policy has learned."""
    problems = chains.make_problems(config.gate_samples, seed=2, columns=config.columns)
    probe = encode_prompts(start, problems[:1], MODEL, _MAX_TOKENS)[0]
    sync_engines(engines, steps, probe, config.cluster.probe_tolerance(MODEL.dtype))
    responses = answer_each(engines, start, problems, config.seed, "gate", steps)
    right = [f"\\boxed{{{p.answer}}}" in r.text for p, r in zip(problems, responses, strict=True)]
    return {
        "warm_start/agreement": float(np.mean([chains.answer_follows_steps(r.text) for r in responses])),
        "warm_start/accuracy": float(np.mean(right)),
    }


def answer_each(
    engines: Engines, policy: str, problems: list[Problem], seed: int, purpose: str, version: int = 0
) -> list[Generated]:
    """One response of the policy that the engines hold to each of the problems, at temperature 1."""
    prompts = encode_prompts(policy, problems, MODEL, _MAX_TOKENS)
    requests = group_requests(prompts, 1, lambda g, s: request_seed(seed, purpose, version, problems[g].id, s))
    tokenizer = load_tokenizer(policy)
    sampling = Sampling(1.0, _MAX_TOKENS, stop_ids(tokenizer))
    return [response for [response] in generate_groups(engines, tokenizer, requests, sampling)]
