"""Rollouts of an iteration: which problems, their responses, and new weights for the engines that give them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from prefect import get_run_logger

from sgpo_core.data.problems import problems_of_iteration, request_seed
from sgpo_core.rl.sampling import problems_of_round, problems_with_history, wants_more
from sgpo_core.storage import rollout_table
from sgpo_core.types import Problem, Rollout, RolloutGroup
from tasks.data import encode_prompts
from tasks.engines.generation import Generated, generate_groups, group_requests
from tasks.engines.sync import sync_engines
from tasks.run import Run
from tasks.stage import Metrics, stage
from tasks.workers.rollout_worker import Request, Sampling


def sampling_rounds(run: Run, iteration: int) -> Iterator[int]:
    """Round 0, and under resampling.strategy=dynamic more while too few of the groups so far, graded, are mixed."""
    yield 0
    settings, per_round, number = run.config.algorithm.resampling, run.config.sampling.problems, 1
    while settings.strategy == "dynamic":
        groups = rollout_table.read(run.paths.rollouts(iteration), ["group", "grade"])
        so_far = [group.outcomes for group in groups[: number * per_round]]  # a saved table may hold rounds to come
        if not wants_more(so_far, per_round, number, settings.max_rounds):
            return
        yield number
        number += 1


@stage("generate")
def generate(run: Run, iteration: int, number: int = 0, behind: int = 0) -> Metrics:
    """Samples a round of the iteration's groups into its rollouts.parquet, by a policy that is so many iterations
    `behind` the one that they will train. A saved one is reused: it was sampled by the policy that was to sample it (on
    GPUs, sampling again would give other tokens). One that is damaged, or of another iteration, is put aside, and
    sampled anew."""
    path, metrics = run.paths.rollouts(iteration), {"rollout/rounds": number + 1.0}
    first_group = number * run.config.sampling.problems
    problems = _problems(run, iteration, number)
    if number == 0 and path.exists() and (what := _fault(run, path, iteration, problems)):
        aside = path.with_name(f"{path.name}.damaged")
        get_run_logger().warning(f"{path}: {what}; it is now {aside.name}, and the responses are sampled anew")
        path.replace(aside)
    if path.exists() and len(rollout_table.read(path, ["group"])) > first_group:
        return metrics
    prompts = encode_prompts(run.policy, problems, run.config.model, run.config.sampling.max_tokens)
    began = time.monotonic()
    groups = _generate(run, iteration, number, iteration - 1 - behind, problems, prompts)
    tokens = sum(len(rollout.token_ids) for group in groups for rollout in group.rollouts)
    metrics["speed/generated_tokens_s"] = tokens / (time.monotonic() - began)
    rollout_table.write(path, [*(rollout_table.read(path) if number else ()), *groups])
    return metrics


def _fault(run: Run, path: Path, iteration: int, problems: Sequence[Problem]) -> str:
    """Why a saved table is not that of this iteration's first round, "" if it is."""
    try:
        groups = rollout_table.read(path)[: len(problems)]
    except OSError as error:
        return str(error)
    if [group.problem.id for group in groups] != [problem.id for problem in problems]:
        return "its problems are those of another iteration"
    by = range(max(0, iteration - 1 - run.async_level), iteration)
    for group in groups:
        for rollout in group.rollouts:
            seed = request_seed(run.config.seed, "rollout", iteration, group.problem.id, rollout.sample)
            if rollout.policy_version not in by or rollout.seed != seed:
                return "its responses were sampled in another iteration, or by another policy"
    return ""


def _generate(
    run: Run, iteration: int, number: int, version: int, problems: Sequence[Problem], prompts: Sequence[Sequence[int]]
) -> list[RolloutGroup]:
    sampling, purpose = run.config.sampling, f"rollout/{number}" if number else "rollout"
    requests = group_requests(
        prompts, sampling.group_size, lambda g, s: request_seed(run.config.seed, purpose, iteration, problems[g].id, s)
    )
    first = number * sampling.problems
    groups: dict[int, RolloutGroup] = {}

    def on_group(g: int, responses: list[Generated]) -> None:
        groups[g] = rollout_group(first + g, problems[g], requests[g], responses, version)
        run.stream.add(iteration, groups[g])

    how = Sampling(sampling.temperature, sampling.max_tokens, run.stop_ids)
    generate_groups(run.engines, run.tokenizer, requests, how, on_group)
    return [groups[g] for g in range(len(problems))]


def rollout_group(
    number: int, problem: Problem, requests: Sequence[Request], responses: Sequence[Generated], policy_version: int
) -> RolloutGroup:
    """The record of a group that was just generated."""
    rollouts = tuple(
        Rollout(
            sample=sample,
            text=response.text,
            truncated=response.completion.truncated,
            token_ids=response.completion.token_ids,
            rollout_logprobs=response.completion.logprobs,
            policy_version=policy_version,
            seed=request.seed,
        )
        for sample, (request, response) in enumerate(zip(requests, responses, strict=True))
    )
    return RolloutGroup(number, problem, np.asarray(requests[0].prompt_ids, np.int32), rollouts)


def _problems(run: Run, iteration: int, number: int) -> list[Problem]:
    per_round, seed = run.config.sampling.problems, run.config.seed
    if run.config.algorithm.resampling.strategy == "history":
        solved = lambda earlier: _solved(run.paths.rollouts(earlier))  # noqa: E731
        return problems_with_history(run.problems, per_round, seed, iteration, solved)
    return problems_of_round(run.problems, per_round, seed, iteration, number)


def _solved(rollouts: Path) -> dict[str, bool]:
    """Problem id -> whether all its responses were correct."""
    return _solved_in(rollouts, rollouts.stat().st_mtime_ns)


@cache  # of an earlier iteration, whose file does not change any more; a run that starts over writes another one
def _solved_in(rollouts: Path, written: int) -> dict[str, bool]:
    groups = rollout_table.read(rollouts, ["group", "problem_id", "grade"])
    return {group.problem.id: group.all_positive for group in groups}


@stage("sync")
def sync_weights(run: Run, version: int) -> Metrics:
    """Brings the trainer's weights to every engine, and has each of them prove it."""
    probe = encode_prompts(run.policy, [problems_of_iteration(run.problems, 1, 0, 1)[0]], run.config.model, 1)[0]
    tolerance = run.config.cluster.probe_tolerance(run.config.model.dtype)
    return {"policy/sync_probe_diff": sync_engines(run.engines, version, probe, tolerance).mean}
