"""evaluation, evaluation_memory: a benchmark's generation (`tasks.benchmarks.evaluate`: problems streamed from the
engine, decoded, written as Parquet by parts) against `LLM.generate` alone on the same engine, all requests handed over
at once and the outputs thrown away; and what 1,000 problems x 16 take besides the engine.

Memory is the largest sum of PSS over all processes of `python -m flows.evaluation` but the engine's actor, looked at
once a second: the flow, its graders, Ray's daemons and Prefect's server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence

import psutil
import pyarrow.parquet as pq
import ray

from bench.demo import GIB, INTERVAL_S, MARK, family, pss
from bench.figures import Figure, side_by_side
from bench.workload import MAX_TOKENS, bare_seconds, policy
from sgpo_core.config.evaluation import load_evaluation
from sgpo_core.storage.atomic import remove_atomically
from tasks.benchmarks.evaluate import Job, encoded_prompts, generate_responses, jobs, model_settings
from tasks.data import stop_ids
from tasks.engines.cluster import rollout_engines
from tasks.paths import REPOSITORY
from tasks.tracking.policies import resolve
from tasks.workers.rollout_worker import Request, Sampling

REPEATS = 7
PROBLEMS, K = 128, 4
ENGINE = "RolloutWorker"


def measure() -> Iterator[Figure]:
    yield throughput()
    yield memory(problems=1000, k=16)


def overrides(problems: int, k: int) -> list[str]:
    """chains-4, of as many columns as the policy knows."""
    of_set = {"data.count": problems, "k": k, "max_tokens": MAX_TOKENS}
    cluster = ["cluster.rollout_actors=1", "cluster.rollout_threads=2", "cluster.max_num_seqs=128"]
    return ["eval=chains-4", *(f"eval.sets.chains-4.{name}={value}" for name, value in of_set.items()), *cluster]


def throughput() -> Figure:
    """tokens/s of both, one engine of two threads."""
    found, config = resolve(policy()), load_evaluation(overrides(PROBLEMS, K))
    [job] = jobs(config, found)
    with rollout_engines(found.folder, found.weights, model_settings(config, [job]), config.cluster) as engines:
        generate_responses.fn(job, config, engines)
        table = pq.read_table(job.generations).sort_by([("number", "ascending"), ("sample", "ascending")]).to_pydict()
        tokens, work = sum(table["tokens"]), requests(job, table["seed"])

        def ours() -> float:
            remove_atomically(job.folder)
            began = time.perf_counter()
            generate_responses.fn(job, config, engines)
            return time.perf_counter() - began

        def peer() -> float:
            return float(ray.get(engines.rollouts[0].__ray_call__.remote(bare_seconds, *work)))

        own_s, bare_s = side_by_side(ours, peer, REPEATS)
    return Figure(
        figure="evaluation",
        value=tokens / own_s,
        unit="tokens/s",
        goal=(">=", 0.90),
        peer=tokens / bare_s,
        ratio=bare_s / own_s,
        how=f"peer: LLM.generate alone, same engine, requests and seeds; {PROBLEMS} problems x {K}, {tokens} tokens, "
        f"2 threads; medians of {REPEATS} in turn",
    )


def requests(job: Job, seeds: Sequence[int]) -> tuple[list[Request], Sampling]:
    """The evaluation's own requests, in the order of problems and samples."""
    settings, stops = job.settings, stop_ids(job.policy.folder)
    prompts = [prompt for prompt in encoded_prompts(job, chat_template=False) for _ in range(settings.k)]
    sampling = Sampling(settings.temperature, settings.max_tokens, stops, settings.top_p, logprobs=False)
    return [Request(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)], sampling


def memory(problems: int, k: int) -> Figure:
    """GiB besides the engine."""
    token = uuid.uuid4().hex
    flow = subprocess.Popen(
        [sys.executable, "-m", "flows.evaluation", policy(), *overrides(problems, k)],
        cwd=REPOSITORY,
        env=os.environ | {MARK: token},
        stdout=subprocess.DEVNULL,
    )
    peak = 0
    while flow.poll() is None:
        peak = max(peak, sum(pss(pid) for pid in family(token) if not is_engine(pid)))
        time.sleep(INTERVAL_S)
    if flow.returncode:
        raise RuntimeError(f"the evaluation failed with exit status {flow.returncode}")
    how = f"peak sum of PSS without the engine, sampled every {INTERVAL_S:.0f} s; {problems} problems x {k}"
    return Figure("evaluation_memory", peak / GIB, "GiB", ("<=", 2), how)


def is_engine(pid: int) -> bool:
    try:
        return any(ENGINE in part for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return True  # gone
