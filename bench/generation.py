"""generation: sampling as a flow does it (`tasks.engines.generation`: requests to a Ray actor, completions back)
against `LLM.generate` alone.

The peer runs on the very same engine in the very same process, on the same requests and seeds, its prompts and
parameters prepared before the clock starts and its outputs thrown away. It is the limit: what is missing to it is what
our worker and Ray add (pickling, parameters, arrays of ids and log-probabilities). Both ask for the log-probability of
the sampled token, without which there is nothing to train on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import ray

from bench.figures import Figure, side_by_side
from bench.workload import COLUMNS, GROUP_SIZE, GROUPS, MAX_TOKENS, bare_seconds, policy
from sgpo_core.chains import problems as chains
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.data import encode_prompts, stop_ids
from tasks.engines.cluster import engines_for
from tasks.engines.generation import stream_groups
from tasks.workers.rollout_worker import Completion, Request, Sampling

REPEATS = 15
MODEL = ModelSettings(max_length=128)


def measure() -> Iterator[Figure]:
    """tokens/s of both, one engine of two threads."""
    cluster = ClusterSettings(rollout_actors=1, rollout_threads=2, max_num_seqs=GROUPS * GROUP_SIZE)
    requests, sampling = work(policy())
    groups = [requests[first : first + GROUP_SIZE] for first in range(0, len(requests), GROUP_SIZE)]
    with engines_for(policy(), MODEL, cluster) as engines:
        worker = engines.rollouts[0]

        def completions() -> list[Completion]:
            return [completion for _, group in stream_groups(engines, groups, sampling) for completion in group]

        def ours() -> float:
            began = time.perf_counter()
            completions()
            return time.perf_counter() - began

        def peer() -> float:
            return float(ray.get(worker.__ray_call__.remote(bare_seconds, requests, sampling)))

        tokens = sum(len(c.token_ids) for c in completions())
        own_s, bare_s = side_by_side(ours, peer, REPEATS)
    yield Figure(
        figure="generation",
        value=tokens / own_s,
        unit="tokens/s",
        goal=(">=", 0.90),
        peer=tokens / bare_s,
        ratio=bare_s / own_s,
        how=f"peer: LLM.generate alone, same engine, requests and seeds; {len(requests)} requests, {tokens} tokens, "
        f"2 threads; medians of {REPEATS} in turn",
    )


def work(folder: str) -> tuple[list[Request], Sampling]:
    """The requests of one iteration, a seed for each."""
    prompts = encode_prompts(folder, chains.make_problems(GROUPS, seed=3, columns=COLUMNS), MODEL, MAX_TOKENS)
    requests = [Request(prompts[i // GROUP_SIZE], seed=i) for i in range(GROUPS * GROUP_SIZE)]
    return requests, Sampling(1.0, MAX_TOKENS, stop_ids(folder))
