"""The policy update: from the iteration's advantages to optimizer steps on the DeepSpeed ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefect import get_run_logger

from sgpo_core.config.algorithm import LossSettings
from sgpo_core.rl.batching import mini_batches
from sgpo_core.rl.training_samples import (
    TrainingSample,
    forward_sample,
    plan_samples,
    policy_samples,
    split_over_ranks,
)
from sgpo_core.sizing.memory import GIB
from sgpo_core.sizing.utilization import mfu
from sgpo_core.storage import rollout_table
from sgpo_core.types import RolloutGroup, TokenLogprobs
from tasks.engines.cluster import Engines
from tasks.run import Run
from tasks.sizing import training_hardware
from tasks.stage import Metrics, stage
from tasks.workers.trainer_worker import RankStats


def set_up_trainer(run: Run) -> None:
    """Fresh optimizer, initial policy; also when the ranks served another run before."""
    c = run.config
    run.engines.on_all_ranks("setup", run.policy, c.model, c.train, c.deepspeed, c.algorithm.loss.needs_reference)


@stage("update")
def update(run: Run, iteration: int) -> Metrics:
    """One optimizer step a mini-batch and epoch; where no group of it has a signal there is no step at all (Adam's
    momentum would move the weights for no reason), unless a KL term still pulls."""
    config, groups = run.config, rollout_table.read(run.paths.rollouts(iteration))
    loss = config.algorithm.loss
    all_count = loss.needs_reference or loss.no_signal_groups == "keep"
    taught = [g for g, group in enumerate(groups) if group.has_signal or (all_count and _is_kept(group))]
    batches = [
        batch
        for epoch in range(config.train.epochs)
        for batch in mini_batches(taught, config.train.mini_batches, f"{config.seed}/{iteration}/{epoch}")
    ]
    filled = [(batch, samples) for batch in batches if (samples := _samples(run, [groups[g] for g in batch]))]
    steps, problems = [samples for _, samples in filled], [[groups[g].problem.id for g in batch] for batch, _ in filled]
    budget, temperature = config.train.micro_batch_tokens, config.sampling.temperature
    steps = with_old_logprobs(run.engines, steps, budget, temperature)
    began = time.monotonic()
    stats = train_on(run.engines, steps, budget, loss, temperature)
    seconds = time.monotonic() - began
    check_finite(stats, problems, f"iteration {iteration}", run.paths.rollouts(iteration))
    metrics = update_metrics(stats, steps, budget, len(run.engines.trainers))
    if run.is_online:
        metrics["rollout/staleness"] = _staleness(iteration, groups)
    if stats:
        metrics |= _speed(run, steps, seconds)
    if stats:  # of the first step alone: later ones have moved away from the sampler on purpose
        metrics |= _mismatch(run, iteration, groups, stats[0].logprob_difference / max(1, stats[0].tokens))
    return metrics


def _speed(run: Run, steps: Sequence[Sequence[TrainingSample]], seconds: float) -> Metrics:
    """Of the update alone: tokens that were computed, a second (a prompt once for the responses that share it); MFU
    where GPU and model are known; memory."""
    lengths = [len(sample.input_ids) for samples in steps for sample in samples]
    budget, ranks = run.config.train.micro_batch_tokens, len(run.engines.trainers)
    tokens = sum(plan_samples(samples, budget, ranks).computed_tokens for samples in steps)
    metrics = {
        "speed/trained_tokens_s": tokens / seconds,
        "memory/trainer_gib": max(run.engines.on_all_ranks("peak_memory")) / GIB,
    }
    if run.config.cluster.trainer_gpus and (known := training_hardware(run.policy)):
        length, adapters = sum(lengths) / len(lengths), run.config.model.lora.rank > 0
        metrics["speed/trainer_mfu"] = mfu(known.policy, known.gpu, ranks, tokens, length, seconds, adapters)
    return metrics


def check_finite(stats: Sequence[RankStats], problems: Sequence[Sequence[str]], where: str, rollouts: Path) -> None:
    """Raises FloatingPointError for an optimizer step whose loss or gradient is not a number: the weights may be lost,
    and nothing may be made of them. `problems`: the ids of each step's."""
    for number, (step, ids) in enumerate(zip(stats, problems, strict=True), 1):
        if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
            more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
            raise FloatingPointError(
                f"{where}, optimizer step {number} of {len(stats)}: the loss is {step.loss}, the norm of its gradient "
                f"{step.grad_norm}. The last checkpoint stands. The responses are in {rollouts}; this step's are "
                f"to the problems {', '.join(ids[:8])}{more}. Lower train.lr or train.grad_clip, or try "
                "model.dtype=float32; with other settings it is another run"
            )


def _is_kept(group: RolloutGroup) -> bool:
    return not all(rollout.credit is None or rollout.credit.filtered for rollout in group.rollouts)


def _samples(run: Run, groups: Sequence[RolloutGroup]) -> list[TrainingSample]:
    """A mini-batch: the responses that count, and have tokens."""
    members = [
        (group, rollout)
        for group in groups
        for rollout in group.rollouts
        if rollout.credit is not None and rollout.credit.counts and len(rollout.token_ids)
    ]
    return policy_samples(members, run.config.algorithm.loss, run.config.sampling.max_tokens)


@stage("recompute_logprobs")
def recompute_logprobs(run: Run, iteration: int) -> None:
    """The trainer's own log-probabilities and entropies of all sampled tokens, before credit, for algorithms that need
    the entropies there."""
    if not run.config.algorithm.needs_entropies:
        return
    path = run.paths.rollouts(iteration)
    groups = rollout_table.read(path)
    samples = [forward_sample(group.prompt_ids, rollout.token_ids) for group in groups for rollout in group.rollouts]
    budget, temperature = run.config.train.micro_batch_tokens, run.config.sampling.temperature
    found = iter(token_logprobs(run.engines, samples, budget, temperature))
    groups = [g.with_rollouts([replace(r, recomputed=next(found)) for r in g.rollouts]) for g in groups]
    rollout_table.write(path, groups)


def with_old_logprobs(
    engines: Engines, steps: Sequence[Sequence[TrainingSample]], token_budget: int, temperature: float
) -> list[list[TrainingSample]]:
    """The optimizer steps of an update, with the trainer's log-probabilities of now where samples lack old ones. Those
    of the first step stay without: its own forward pass is by the same weights. A text that several epochs train on is
    computed once."""
    lacking = {_text(s): s for step in steps[1:] for s in step if s.old_logprobs is None}
    found = token_logprobs(engines, list(lacking.values()), token_budget, temperature) if lacking else []
    known = {text: logprobs.logprobs for text, logprobs in zip(lacking, found, strict=True)}
    return [
        [s if number == 0 or s.old_logprobs is not None else replace(s, old_logprobs=known[_text(s)]) for s in step]
        for number, step in enumerate(steps)
    ]


def _text(sample: TrainingSample) -> tuple[int, bytes]:
    return sample.prompt_length, sample.input_ids.tobytes()


def token_logprobs(
    engines: Engines, samples: Sequence[TrainingSample], token_budget: int, temperature: float
) -> list[TokenLogprobs]:
    """Of each sample's response tokens, in the order of the samples."""
    plan = plan_samples(samples, token_budget, len(engines.trainers))
    answers = engines.on_each_rank(
        "token_logprobs",
        [([[samples[i] for i in batch] for batch in batches], temperature) for batches in plan.ranks],
    )
    found: dict[int, TokenLogprobs] = {}
    for batches, answer in zip(plan.ranks, answers, strict=True):
        found |= zip([i for batch in batches for i in batch], answer, strict=True)
    return [found[i] for i in range(len(samples))]


def _staleness(iteration: int, groups: Sequence[RolloutGroup]) -> float:
    """By how many iterations the policy that is updated is ahead of the one that has sampled, mean over responses."""
    versions = [rollout.policy_version for group in groups for rollout in group.rollouts]
    return iteration - 1 - sum(versions) / len(versions)


def _mismatch(run: Run, iteration: int, groups: Sequence[RolloutGroup], difference: float) -> Metrics:
    """Mean |trainer - sampler| (nats), and the alarm: where the policy that is updated has sampled the responses, any
    difference is a fault."""
    metrics, alarm = {"policy/sampler_logprob_diff": difference}, run.config.train.mismatch_alarm
    if not run.is_online or _staleness(iteration, groups) > 0:
        return metrics
    if difference > alarm:
        get_run_logger().warning(
            f"sampler and trainer disagree by {difference:.3f} nats a token on average, over train.mismatch_alarm="
            f"{alarm}: what is trained on is not what was sampled. algorithm.loss.old_logprobs=trainer with "
            "algorithm.loss.tis_cap=2 corrects for it; model.dtype=float32 tells noise from stale weights"
        )
    return metrics | {"policy/mismatch_alarm": float(difference > alarm)}


def train_on(
    engines: Engines,
    steps: Sequence[Sequence[TrainingSample]],
    token_budget: int,
    loss: LossSettings,
    temperature: float,
) -> list[RankStats]:
    """One optimizer step for each entry of `steps` (a whole mini-batch of samples); sums over ranks."""
    if not steps:
        return []
    split = [split_over_ranks(samples, token_budget, len(engines.trainers)) for samples in steps]
    per_rank = engines.on_each_rank(
        "update",
        [([step[rank] for step in split], loss, temperature) for rank in range(len(engines.trainers))],
    )
    return [_add(ranks) for ranks in zip(*per_rank, strict=True)]


def _add(ranks: Sequence[RankStats]) -> RankStats:
    sums = {name: sum(getattr(r, name) for r in ranks) for name in RankStats.__slots__}
    return RankStats(**{**sums, "grad_norm": ranks[0].grad_norm})


def update_metrics(
    stats: Sequence[RankStats], steps: Sequence[Sequence[TrainingSample]], token_budget: int, world_size: int
) -> Metrics:
    """The `policy/...` metrics of an iteration; only the number of steps (0) where none was made."""
    if not stats:
        return {"policy/steps": 0.0}
    tokens = max(1, sum(s.tokens for s in stats))
    plans = [plan_samples(samples, token_budget, world_size) for samples in steps]
    return {
        "policy/steps": float(len(stats)),
        "policy/loss": sum(s.loss for s in stats) / len(stats),
        "policy/kl": sum(s.kl for s in stats) / tokens,
        "policy/clip_frac": sum(s.clipped for s in stats) / tokens,
        "policy/entropy": sum(s.entropy for s in stats) / tokens,
        "policy/grad_norm": sum(s.grad_norm for s in stats) / len(stats),
        "policy/shared_frac": 1.0 - sum(p.computed_tokens for p in plans) / sum(p.separate_tokens for p in plans),
    }
