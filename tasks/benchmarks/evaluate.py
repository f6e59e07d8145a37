"""One policy on benchmarks: generate what is missing, grade, score; everything kept by problem.

    problems ──generate──▶ generations/*.parquet ──grade──▶ grades-<protocol>.parquet ──score──▶ result-<protocol>.json
               Ray + vLLM        by problem                   killable processes

<SGPO_HOME>/evaluations/<weights>/<benchmark>-<generation id>/ holds them. A part of generations appears whole or not at
all: after a kill the problems of the last seconds are generated again, by the same seeds, and so are those of a part
that was damaged. A result that is there for the same weights and protocol is the result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from tqdm import tqdm

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import BenchmarkSettings, ModelSettings
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.data.problems import as_problem, request_seed
from sgpo_core.evaluation.protocol import Protocol, Result, protocol
from sgpo_core.evaluation.scores import GradedResponse, score
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.storage.atomic import read_json, write_atomically, write_json
from sgpo_core.storage.digests import is_whole, note
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import Problem
from tasks.data import decode_all, encode_prompt, load_benchmarks, load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, keep_engines, rollout_engines
from tasks.engines.generation import stream_groups
from tasks.flow_page import FlowPage
from tasks.models.policy_checks import check_policy, context_length
from tasks.paths import home
from tasks.run import locked, start_over
from tasks.services.environment import option
from tasks.tracking.policies import Policy
from tasks.workers.rollout_worker import Completion, Request, Sampling

_FLUSH_S = 5.0  # generations are written at least that often: what a kill costs
_FLUSH_PROBLEMS = 64

Parts = list[tuple[int, list[Completion]]]  # (number of a problem, its responses)


class Job:
    """One benchmark of one policy. (A plain class: Prefect walks through dataclasses that are handed to a task.)"""

    def __init__(self, policy: Policy, settings: BenchmarkSettings, protocol: Protocol, problems: Sequence[Problem]):
        self.policy, self.settings, self.protocol, self.problems = policy, settings, protocol, problems
        self.folder = home() / "evaluations" / policy.weights / f"{protocol.benchmark}-{protocol.generation_id}"

    @property
    def generations(self) -> Path:
        return self.folder / "generations"

    @property
    def result(self) -> Path:
        return self.folder / f"result-{self.protocol.id}.json"

    def parts(self) -> list[Path]:
        return sorted(self.generations.glob("*.parquet"))

    def generated(self) -> set[int]:
        """Numbers of the problems whose responses are on disk. Parts that are damaged are put aside."""
        parts = [part for part in self.parts() if is_whole(part)]
        return {number for part in parts for number in pq.read_table(part, columns=["number"])[0].to_pylist()}

    def is_generated(self) -> bool:
        return len(self.generated()) == len(self.problems)


def jobs(config: EvaluationConfig, policy: Policy) -> list[Job]:
    """What there is to do for a policy. Raises ConfigError for a benchmark that can't be used."""
    if not config.eval.sets:
        raise ConfigError("eval.sets is empty: choose benchmarks, as in eval=nine")
    sets = {name: [as_problem(row) for row in rows] for name, rows in load_benchmarks(config.eval.sets).items()}
    return [
        Job(policy, benchmark, protocol(name, benchmark, config, sets[name]), sets[name])
        for name, benchmark in config.eval.sets.items()
    ]


def evaluate_policy(
    config: EvaluationConfig, policy: Policy, force: bool = False, rescore: bool = False
) -> dict[str, Result]:
    """Results by benchmark. `force` generates again what is complete, `rescore` only grades what was generated.

    Raises ConfigError where `rescore` has nothing to grade.
    """
    log, todo = get_run_logger(), jobs(config, policy)
    for job in todo:
        name = job.protocol.benchmark
        if rescore and not job.is_generated():
            raise ConfigError(
                f"{option('rescore')}: {job.folder} has no complete generations of {name}; evaluate without it first"
            )
        if rescore:
            job.result.unlink(missing_ok=True)
        elif force and job.is_generated():
            with locked(RunPaths(job.folder)):
                start_over(RunPaths(job.folder))
        elif job.result.exists():
            log.info(f"{name}: evaluated already, weights {policy.weights}, protocol {job.protocol.id}: {job.result}")
    missing = [job for job in todo if not job.is_generated()]
    with keep_engines():
        model = model_settings(config, missing) if missing else ModelSettings()
        for job in missing:
            with (
                locked(RunPaths(job.folder)),
                rollout_engines(policy.folder, policy.weights, model, config.cluster) as engines,
            ):
                generate_responses(job, config, engines)
    return {job.protocol.benchmark: finished_result(job) or grade_responses(job) for job in todo}


def finished_result(job: Job) -> Result | None:
    return Result.from_json(read_json(job.result)) if job.result.exists() else None


def model_settings(config: EvaluationConfig, todo: Sequence[Job]) -> ModelSettings:
    """The engine's settings: as long as the longest prompt and response of all benchmarks, whatever is done first.
    Raises ConfigError where the policy can't be asked, or not at that length."""
    policy = todo[0].policy
    check_policy(f"POLICY={policy.name}", policy.folder, ModelSettings(max_length=1), config.cluster, trained=False)
    longest = max(
        len(prompt) + job.settings.max_tokens
        for job in todo
        for prompt in encoded_prompts(job, uses_template(config, job))
    )
    limit = context_length(policy.folder)
    if limit is not None and longest > limit:
        raise ConfigError(
            f"prompts and responses take {longest} tokens, the policy holds {limit} (max_position_embeddings): lower "
            "eval.sets.<benchmark>.max_tokens"
        )
    return ModelSettings(dtype=config.dtype, max_length=longest)


def uses_template(config: EvaluationConfig, job: Job) -> bool:
    template = load_tokenizer(job.policy.folder).chat_template
    if config.chat_template == "always" and not template:
        raise ConfigError("chat_template=always: the policy's tokenizer has no chat template")
    used = config.chat_template != "never" and bool(template)
    if config.thinks is not None and not (used and "thinking" in str(template)):
        raise ConfigError(f"thinks={str(config.thinks).lower()}: no chat template with a switch for thinking is used")
    return used


def encoded_prompts(job: Job, chat_template: bool) -> list[list[int]]:
    """Token ids of all prompts, as the protocol has them."""
    tokenizer = load_tokenizer(job.policy.folder)
    model = ModelSettings(chat_template=chat_template, thinks=job.protocol.thinks)
    texts = [replace(p, prompt=job.settings.prompt.replace("{problem}", p.prompt)) for p in job.problems]
    return [encode_prompt(tokenizer, problem, model) for problem in texts]


@task(name="generate", retries=0, cache_policy=NO_CACHE, persist_result=False)
def generate_responses(job: Job, config: EvaluationConfig, engines: Engines) -> None:
    """Samples the problems that are not on disk yet, spread over the engines, and writes them as they are finished."""
    settings, name = job.settings, job.protocol.benchmark
    tokenizer, prompts = load_tokenizer(job.policy.folder), encoded_prompts(job, uses_template(config, job))
    sampling = Sampling(
        settings.temperature, settings.max_tokens, stop_ids(job.policy.folder), settings.top_p, logprobs=False
    )
    seeds = [
        [request_seed(settings.seed, f"eval/{name}", 0, problem.id, s) for s in range(settings.k)]
        for problem in job.problems
    ]
    have, page = job.generated(), FlowPage(f"{job.policy.weights}-{name}")
    missing = [number for number in range(len(job.problems)) if number not in have]
    groups = [[Request(prompts[number], seed) for seed in seeds[number]] for number in missing]
    job.generations.mkdir(parents=True, exist_ok=True)
    buffer: Parts = []
    began = written = time.monotonic()
    with tqdm(
        total=len(job.problems), initial=len(have), desc=f"generate {name}", unit="problem", mininterval=1
    ) as bar:
        for place, responses in stream_groups(engines, groups, sampling):
            buffer.append((missing[place], responses))
            bar.update()
            if len(buffer) >= _FLUSH_PROBLEMS or time.monotonic() - written > _FLUSH_S:
                write_part(job, buffer, seeds, tokenizer)
                page.bar(100.0 * bar.n / len(job.problems), f"{name}: {bar.n} of {len(job.problems)} problems")
                buffer, written = [], time.monotonic()
        if buffer:
            write_part(job, buffer, seeds, tokenizer)
    page.bar(100.0, f"{name}: all {len(job.problems)} problems")
    seconds = read_seconds(job) + time.monotonic() - began
    write_json(job.folder / "generation.json", {"seconds": seconds, "policy": job.policy.name})


def write_part(job: Job, finished: Parts, seeds: Sequence[Sequence[int]], tokenizer: Any) -> None:
    """A row for each response, a part for some problems; the numbers of parts only grow."""
    rows = [(number, s, response) for number, responses in finished for s, response in enumerate(responses)]
    table = pa.table(
        {
            "number": [number for number, _, _ in rows],
            "problem_id": [job.problems[number].id for number, _, _ in rows],
            "sample": [s for _, s, _ in rows],
            "seed": [seeds[number][s] for number, s, _ in rows],
            "problem": [job.problems[number].prompt for number, _, _ in rows],
            "answer": [job.problems[number].answer for number, _, _ in rows],
            "response": decode_all(tokenizer, [response.token_ids for _, _, response in rows]),
            "tokens": [len(response.token_ids) for _, _, response in rows],
            "truncated": [response.truncated for _, _, response in rows],
        }
    )
    last = max((int(part.stem) for part in job.parts()), default=-1)
    part = job.generations / f"{last + 1:06d}.parquet"

    def put(aside: Path) -> None:
        pq.write_table(table, aside, compression="zstd")
        note(part, aside)

    write_atomically(part, put)


def read_seconds(job: Job) -> float:
    file = job.folder / "generation.json"
    return float(read_json(file)["seconds"]) if file.exists() else 0.0


@task(name="grade", retries=0, cache_policy=NO_CACHE, persist_result=False)
def grade_responses(job: Job) -> Result:
    """Grades and scores what was generated; nothing else is needed."""
    groups: dict[int, list[GradedResponse]] = {}
    rows: list[dict[str, Any]] = []
    columns = ["number", "problem_id", "sample", "answer", "response", "tokens", "truncated"]
    bar = tqdm(total=len(job.problems), desc=f"grade {job.protocol.benchmark}", unit="problem", mininterval=1)
    with bar, AnswerGrader(workers=os.cpu_count() or 1) as grader:
        for part in job.parts():
            table = pq.read_table(part, columns=columns).to_pylist()
            grades = grader.grade([(row["answer"], row["response"]) for row in table], job.settings.data.answer_form)
            for row, grade in zip(table, grades, strict=True):
                response = GradedResponse(grade, row["truncated"], row["tokens"])
                groups.setdefault(row["number"], []).append(response)
                kept = {name: row[name] for name in ("number", "problem_id", "sample")}
                rows.append(kept | {"grade": grade.outcome.value, "extracted_answer": grade.extracted})
            bar.update(len({row["number"] for row in table}))
    in_order = [groups[number] for number in range(len(job.problems))]
    per_problem = [sum(r.grade.correct for r in group) / len(group) for group in in_order]
    result = Result(
        weights=job.policy.weights,
        protocol=job.protocol,
        scores=score(in_order),
        per_problem=dict(zip((problem.id for problem in job.problems), per_problem, strict=True)),
        seconds=read_seconds(job),
    )
    grades_file = job.folder / f"grades-{job.protocol.id}.parquet"
    rows.sort(key=lambda row: (row["number"], row["sample"]))
    write_atomically(grades_file, lambda path: pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd"))
    write_json(job.result, result.as_json())
    return result
