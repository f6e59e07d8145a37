"""Benchmark evaluation of the policy that the engines hold."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import BenchmarkSettings
from sgpo_core.config.run import TrainingConfig
from sgpo_core.data.problems import as_problem, request_seed
from sgpo_core.evaluation.scores import GradedResponse, score
from sgpo_core.storage.atomic import write_atomically
from tasks.data import Benchmarks, encode_prompts
from tasks.engines.generation import generate_groups, group_requests
from tasks.run import Run
from tasks.stage import IterationMetrics, Metrics, stage
from tasks.workers.rollout_worker import Sampling


def check_benchmarks(config: TrainingConfig, policy: str, benchmarks: Benchmarks) -> None:
    """Raises ConfigError for the first problem whose prompt leaves no room for a response."""
    for name, settings in config.eval.sets.items():
        problems = [as_problem(row) for row in benchmarks[name]]
        try:
            encode_prompts(policy, problems, config.model, config.sampling.max_tokens)
        except ConfigError as error:
            raise ConfigError(f"eval.sets.{name}.data.source={settings.data.source}: {error}") from None


@stage("evaluate")
def evaluate(run: Run, iteration: int) -> Metrics:
    """k responses to each problem of every benchmark. The seeds are the same at every evaluation and for every
    algorithm and run, so that comparisons are paired."""
    metrics = IterationMetrics()
    for name, settings in run.config.eval.sets.items():
        metrics += _evaluate_one(run, iteration, name, settings)
    return metrics


def _evaluate_one(run: Run, iteration: int, name: str, settings: BenchmarkSettings) -> Metrics:
    problems = [as_problem(row) for row in run.benchmarks[name]]
    limit = run.config.sampling.max_tokens
    prompts = encode_prompts(run.policy, problems, run.config.model, limit)
    requests = group_requests(
        prompts, settings.k, lambda p, s: request_seed(settings.seed, f"eval/{name}", 0, problems[p].id, s)
    )
    sampling = Sampling(settings.temperature, limit, run.stop_ids, settings.top_p)
    groups = generate_groups(run.engines, run.tokenizer, requests, sampling)
    rows = [(problem, s, r) for problem, group in zip(problems, groups, strict=True) for s, r in enumerate(group)]
    pairs = [(problem.answer, response.text) for problem, _, response in rows]
    grades = run.grader.grade(pairs, settings.data.answer_form)
    table = pa.table(
        {
            "problem_id": [problem.id for problem, _, _ in rows],
            "sample": [s for _, s, _ in rows],
            "response": [response.text for _, _, response in rows],
            "tokens": [len(response.completion.token_ids) for _, _, response in rows],
            "truncated": [response.completion.truncated for _, _, response in rows],
            "grade": [grade.outcome.value for grade in grades],
            "extracted_answer": [grade.extracted for grade in grades],
        }
    )
    write_atomically(
        run.paths.evaluation(iteration, name), lambda path: pq.write_table(table, path, compression="zstd")
    )
    responses = [
        GradedResponse(grade, response.completion.truncated, len(response.completion.token_ids))
        for grade, (_, _, response) in zip(grades, rows, strict=True)
    ]
    return score([responses[i : i + settings.k] for i in range(0, len(responses), settings.k)]).metrics(name)
