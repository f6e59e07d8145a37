"""Benchmark evaluation of the policy that the engines hold."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_core.answers import Outcome
from sgpo_core.config import BenchmarkSettings
from sgpo_core.files import write_atomically
from sgpo_core.metrics import evaluation_metrics
from sgpo_core.problems import as_problem, request_seed
from tasks.data import decode_all, encode_prompts
from tasks.rollout import sample
from tasks.run import Run, phase
from tasks.workers.rollout_worker import Request, Sampling


@phase("evaluate")
def evaluate(run: Run, iteration: int) -> None:
    """k responses to each problem of every benchmark. The seeds are the same at every evaluation and for every
    algorithm and run, so that comparisons are paired."""
    for name, settings in run.config.eval.sets.items():
        run.metrics |= _evaluate_one(run, iteration, name, settings)


def _evaluate_one(run: Run, iteration: int, name: str, settings: BenchmarkSettings) -> dict[str, float]:
    problems = [as_problem(row) for row in run.benchmarks[name]]
    limit = run.config.sampling.max_tokens
    prompts = encode_prompts(run.policy, problems, run.config.model, limit)
    rows = [(p, s) for p in range(len(problems)) for s in range(settings.k)]
    requests = [Request(prompts[p], request_seed(0, f"eval/{name}", 0, problems[p].id, s)) for p, s in rows]
    sampling = Sampling(settings.temperature, limit, run.stop_ids, settings.top_p)
    completions = sample(run.engines, requests, sampling, settings.k)
    texts = decode_all(run.tokenizer, [c.token_ids for c in completions])
    grades = run.grader.grade([(problems[p].answer, text) for (p, _), text in zip(rows, texts, strict=True)])
    table = pa.table(
        {
            "problem_id": [problems[p].id for p, _ in rows],
            "sample": [s for _, s in rows],
            "response": texts,
            "grade": [g.outcome.value for g in grades],
            "extracted_answer": [g.extracted for g in grades],
        }
    )
    write_atomically(
        run.paths.evaluation(iteration, name), lambda path: pq.write_table(table, path, compression="zstd")
    )
    per_problem = [grades[i : i + settings.k] for i in range(0, len(grades), settings.k)]
    return evaluation_metrics(
        name,
        [[g.outcome is Outcome.CORRECT for g in group] for group in per_problem],
        [[g.extracted for g in group] for group in per_problem],
    )
