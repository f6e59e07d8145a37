"""Generation on the rollout engines, and getting new weights to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray

from sgpo_core import rollout_table
from sgpo_core.problems import problems_of_iteration, request_seed
from tasks.cluster import Engines
from tasks.data import decode_all, encode_prompts
from tasks.run import Run, phase
from tasks.workers.rollout_worker import Completion, Request, Sampling
from tasks.workers.weight_sync import Fingerprint


@phase("generate")
def generate(run: Run, iteration: int) -> Path:
    """Samples the iteration's groups into its rollouts.parquet. A saved one is reused: it was sampled by the policy of
    this very iteration (on GPUs, sampling again would give other tokens)."""
    path = run.paths.rollouts(iteration)
    if path.exists():
        return path
    sampling = run.config.sampling
    problems = problems_of_iteration(run.problems, sampling.problems, run.config.seed, iteration)
    prompts = encode_prompts(run.policy, problems, run.config.model, sampling.max_tokens)
    rows = [(group, sample) for group in range(len(problems)) for sample in range(sampling.group_size)]
    seeds = [request_seed(run.config.seed, "rollout", iteration, problems[g].id, s) for g, s in rows]
    requests = [Request(prompts[g], seed) for (g, _), seed in zip(rows, seeds, strict=True)]
    completions = sample(
        run.engines, requests, Sampling(sampling.temperature, sampling.max_tokens, run.stop_ids), sampling.group_size
    )
    rollout_table.write(
        path,
        {
            "problem_id": [problems[g].id for g, _ in rows],
            "group": [g for g, _ in rows],
            "sample": [s for _, s in rows],
            "prompt": [problems[g].prompt for g, _ in rows],
            "answer": [problems[g].answer for g, _ in rows],
            "reference": [problems[g].reference for g, _ in rows],
            "prompt_ids": [prompts[g] for g, _ in rows],
            "token_ids": [c.token_ids for c in completions],
            "rollout_logprobs": [c.logprobs for c in completions],
            "response": decode_all(run.tokenizer, [c.token_ids for c in completions]),
            "truncated": [c.truncated for c in completions],
            "policy_version": [iteration - 1] * len(rows),
            "seed": seeds,
        },
    )
    return path


def sample(engines: Engines, requests: Sequence[Request], sampling: Sampling, group_size: int) -> list[Completion]:
    """Completions in the order of the requests, spread over the engines by whole groups (which share a prompt, whose
    prefix is then computed once)."""
    count = len(engines.rollouts)
    shares = [[i for i in range(len(requests)) if (i // group_size) % count == engine] for engine in range(count)]
    answers = ray.get(
        [
            engine.generate.remote([requests[i] for i in share], sampling)
            for engine, share in zip(engines.rollouts, shares, strict=True)
        ]
    )
    by_request = {
        i: c for share, answer in zip(shares, answers, strict=True) for i, c in zip(share, answer, strict=True)
    }
    return [by_request[i] for i in range(len(requests))]


@phase("sync")
def sync_weights(run: Run, version: int) -> float:
    """Brings the trainer's weights to every engine; returns the probe's largest difference (nats)."""
    probe = encode_prompts(run.policy, [problems_of_iteration(run.problems, 1, 0, 1)[0]], run.config.model, 1)[0]
    return sync_engines(run.engines, version, probe, run.config.cluster.sync_tolerance)


def sync_engines(engines: Engines, version: int, probe: Sequence[int], tolerance: float) -> float:
    """Export, load, compare fingerprints. Raises RuntimeError when an engine does not hold the trainer's weights: to go
    on would be to train on samples of another policy."""
    path = engines.sync_dir / f"policy-{version}.safetensors"
    checksums = engines.on_all_ranks("export", str(path))
    loading = [engine.load_weights.remote(str(path), version, probe) for engine in engines.rollouts]
    expected = Fingerprint(version, checksums[0], tuple(engines.on_all_ranks("probe", probe)[0]))
    worst = 0.0
    for number, found in enumerate(ray.get(loading)):
        difference = expected.difference(found)
        worst = max(worst, difference)
        if (found.version, found.checksum) != (expected.version, expected.checksum) or not difference <= tolerance:
            raise RuntimeError(
                f"rollout engine {number} does not hold the trainer's weights: version {found.version} for {version}, "
                f"checksum {'equal' if found.checksum == expected.checksum else 'different'}, probe differs by "
                f"{difference:.2e} nats (cluster.sync_tolerance={tolerance})"
            )
    path.unlink()
    return worst
