"""update, update_shared: one optimizer step through the trainer (`tasks.training.train_on`: samples to a DeepSpeed rank
in a Ray actor) against a bare torch loop.

The peer is what one writes without a framework: transformers model, log-softmax, clipped loss, `backward`, gradient
clipping, `torch.optim.AdamW`. It has the same threads and responses, as padded rows, in micro-batches of the same token
budget, whose tensors are made before its clock starts; ours makes them, measures entropy, clip share and distance to
the sampler, and sends samples and results through Ray. In `update` every response has a prompt of its own. In
`update_shared` eight responses share a prompt, as in a run, and prompts are half of the padded rows' tokens: the peer
computes a prompt with each response, ours once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from bench.figures import Figure, side_by_side
from bench.workload import COLUMNS, GROUP_SIZE, GROUPS, MAX_TOKENS, policy
from sgpo_core.chains import problems as chains
from sgpo_core.config.algorithm import LossSettings
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings
from sgpo_core.rl.training_samples import MicroBatch, TrainingSample, collate, policy_samples
from sgpo_core.types import Credit, Problem, Rollout, RolloutGroup
from tasks.data import load_tokenizer
from tasks.engines.actors import start_ray
from tasks.engines.cluster import Engines, keep_engines, start_trainers
from tasks.paths import REPOSITORY
from tasks.training import train_on
from tasks.workers.trainer_worker import trainer_environment

REPEATS = 15
TRAIN = TrainSettings(lr=1e-6)  # small, so that the policy is about the same at the last repeat as at the first
LOSS = LossSettings()


def measure() -> Iterator[Figure]:
    """Seconds of one step on 128 responses, one rank of two threads."""
    with keep_engines():
        start_ray()
        engines = Engines((), start_trainers(ClusterSettings(trainer_threads=2)), Path())
        engines.on_all_ranks("setup", policy(), ModelSettings(), TRAIN, DeepSpeedSettings(), False)
        yield against_plain_loop(engines, "update", training_samples(policy()), 0.85)
        yield against_plain_loop(engines, "update_shared", training_samples(policy(), shared=True), 1.6)


def against_plain_loop(engines: Engines, figure: str, samples: Sequence[TrainingSample], goal: float) -> Figure:
    variables = {"PYTHONPATH": str(REPOSITORY), **trainer_environment(2, on_gpu=False)}
    plain = ray.remote(PlainLoop).options(num_cpus=0, runtime_env={"env_vars": variables}).remote(policy(), samples)

    def ours() -> float:
        time.sleep(0.3)  # the other process's OpenMP threads spin for a moment after their work
        began = time.perf_counter()
        train_on(engines, [samples], TRAIN.micro_batch_tokens, LOSS, temperature=1.0)
        return time.perf_counter() - began

    def peer() -> float:
        time.sleep(0.3)
        return float(ray.get(plain.step.remote()))

    own_s, bare_s = side_by_side(ours, peer, REPEATS)
    ray.kill(plain)
    tokens, prompts = (sum(n) for n in zip(*((len(s.input_ids), s.prompt_length) for s in samples), strict=True))
    return Figure(
        figure=figure,
        value=own_s,
        unit="s",
        goal=(">=", goal),
        peer=bare_s,
        ratio=bare_s / own_s,
        how=f"peer: plain torch loop, padded rows, as many tokens in a micro-batch; {len(samples)} responses, {tokens} "
        f"tokens, {prompts} of them in prompts, one with each response; 2 threads; medians of {REPEATS} in turn",
    )


def training_samples(folder: str, shared: bool = False) -> list[TrainingSample]:
    """Worked solutions with slips, as long as real responses; advantages and old log-probabilities are made up.
    `shared`: eight to a problem, whose prompt, with a worked example in front of it, is as long as a response."""
    rng, tokenizer = random.Random(0), load_tokenizer(folder)
    size = GROUP_SIZE if shared else 1
    groups = [_group(number, size, rng, tokenizer) for number in range(GROUPS * GROUP_SIZE // size)]
    return policy_samples([(group, rollout) for group in groups for rollout in group.rollouts], LOSS, MAX_TOKENS)


def _group(number: int, size: int, rng: random.Random, tokenizer: Any) -> RolloutGroup:
    """A problem of its own, and so many responses to it."""
    a, b = chains.sample_operands(rng, COLUMNS, 0.9)
    problem = Problem(f"chains-{a}+{b}", chains.prompt(a, b), str(a + b))
    traces = [chains.solve(a, b, rng, slip_rate=0.3).text for _ in range(size)]
    responses = tuple(_credited(_response(text, tokenizer), rng.choice([-1.0, 1.0])) for text in traces)
    example = "" if size == 1 else chains.solve(*chains.sample_operands(rng, COLUMNS - 1, 0.9), rng).text + "\n"
    return RolloutGroup(
        number, problem, np.array(tokenizer(example + problem.prompt)["input_ids"], np.int32), responses
    )


def _response(text: str, tokenizer: Any) -> Rollout:
    tokens = np.array([*tokenizer(text)["input_ids"], tokenizer.eos_token_id], np.int32)
    return Rollout(0, text, False, tokens, np.full(len(tokens), -0.2, np.float32))


def _credited(response: Rollout, advantage: float) -> Rollout:
    share = np.ones(len(response.token_ids), np.float32)
    return replace(response, credit=Credit(0.0, advantage=advantage, token_credit=share))


@dataclass(frozen=True)
class Padded:
    """Samples as most trainers have them, each with its prompt, padded on the right: `input_ids` [samples, longest];
    `position` of the token that predicts each; the rest as ours."""

    input_ids: torch.Tensor
    position: torch.Tensor
    flat: MicroBatch


def padded_cuts(lengths: Sequence[int], token_budget: int) -> list[int]:
    """Where micro-batches begin: (samples in it) x (its longest) <= token_budget; `lengths` descend."""
    cuts = [0]
    for i in range(len(lengths)):
        if (i - cuts[-1] + 1) * lengths[cuts[-1]] > token_budget:
            cuts.append(i)
    return [*cuts, len(lengths)]


def padded(samples: Sequence[TrainingSample]) -> Padded:
    texts = [torch.from_numpy(sample.input_ids.astype(np.int64)) for sample in samples]
    position = [torch.arange(s.prompt_length - 1, len(s.input_ids) - 1) for s in samples]
    return Padded(torch.nn.utils.rnn.pad_sequence(texts, batch_first=True), torch.cat(position), collate(samples))


class PlainLoop:
    """The peer, in a process of its own."""

    def __init__(self, folder: str, samples: Sequence[TrainingSample]) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=TRAIN.lr, betas=TRAIN.betas, weight_decay=0.0)
        by_length = sorted(samples, key=lambda sample: -len(sample.input_ids))
        cuts = padded_cuts([len(sample.input_ids) for sample in by_length], TRAIN.micro_batch_tokens)
        self.batches = [padded(by_length[a:b]) for a, b in pairwise(cuts)]

    def step(self) -> float:
        """Seconds of one optimizer step."""
        began = time.perf_counter()
        self.optimizer.zero_grad()
        for batch in self.batches:
            self._loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), TRAIN.grad_clip)
        self.optimizer.step()
        return time.perf_counter() - began

    def _loss(self, padded: Padded) -> torch.Tensor:
        batch = padded.flat
        logits = self.model(input_ids=padded.input_ids, use_cache=False).logits[batch.row, padded.position]
        logprobs = torch.log_softmax(logits, dim=-1).gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)
        ratio = torch.exp(logprobs - batch.sampler_logprobs)
        clipped = torch.clamp(ratio, 1 - LOSS.clip_low, 1 + LOSS.clip_high)
        return -(torch.minimum(ratio * batch.advantages, clipped * batch.advantages) * batch.weights).sum()
