"""The stages that get responses ready for offline training. Each is done once and kept, whatever trains on it later:

    sample ─┐
            ├─▶ import ──▶ grade ──▶ judge ──▶ score          runs/responses/<data set>/<stage>
    source ─┘   check, group        (not GRPO)  (where log-probabilities are missing)

A stage is named by what decides it, and works shard by shard: one that was stopped goes on with the next shard.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from prefect import task
from prefect.cache_policies import NO_CACHE
from tqdm import tqdm

from sgpo_core import rollout_table
from sgpo_core.answers import AnswerGrader, Grade, Outcome
from sgpo_core.config import fingerprint
from sgpo_core.credit import Scope
from sgpo_core.files import read_json, waiting_lock, whole_directory, write_json
from sgpo_core.judge import Judgement
from sgpo_core.judge_settings import JudgeSettings
from sgpo_core.offline import OfflineConfig, ResponsesSettings
from sgpo_core.problems import as_problem, request_seed
from sgpo_core.response_checks import BadRows
from sgpo_core.response_groups import Imported, import_responses
from sgpo_core.response_sources import source_files
from sgpo_core.response_store import Responses, shard_columns, shard_path, write_shard
from sgpo_core.segmentation import SEGMENTER
from sgpo_core.training_rows import scoring_row
from sgpo_core.types import Verdict, VerdictStatus
from sgpo_core.weights import model_key
from tasks.cluster import Engines, engines_for
from tasks.data import PolicyCodec, decode_all, encode_prompts, fitting, load_tokenizer, open_problems, stop_ids
from tasks.grading import grade_columns
from tasks.judge_eval import check_gate
from tasks.judges import JUDGED_COLUMNS, Judging, calls_at_a_time, judging_model, open_judge
from tasks.judging import stop_in_time
from tasks.rollout import group_requests, rollout_columns, sample, sync_engines
from tasks.services import home
from tasks.training import score_rows
from tasks.verdict_cache import judge_identity
from tasks.workers.rollout_worker import Sampling

P = ParamSpec("P")
R = TypeVar("R")
_PROBLEMS_A_FILE = 128


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A Prefect task, neither retried nor cached: what it has done lies on the disk."""
    return task(name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)


def data_set_lock(config: OfflineConfig) -> AbstractContextManager[None]:
    """One process at a time gets the same responses ready; the others then find them."""
    same = [config.responses, config.data, config.model, config.sampling]
    name = fingerprint([settings.model_dump(mode="json", exclude={"problems"}) for settings in same])
    return waiting_lock(home() / "responses" / f".{name}.lock")


@stage("sample")
def sample_responses(config: OfflineConfig, policy: str) -> Path:
    """`sampling.group_size` responses of the start policy to every problem of `data`, as files of rollouts; returns
    their folder."""
    sampling = config.sampling
    decides = [
        model_key(policy),
        config.model.model_dump(mode="json"),
        config.data.model_dump(mode="json"),
        sampling.model_dump(mode="json", exclude={"problems"}),
        config.responses.seed,
    ]
    folder = home() / "responses" / f"sampled-{fingerprint(decides)}" / "rollouts"
    problems = fitting(open_problems(config.data), policy, config.model, sampling.max_tokens)
    starts = range(0, len(problems), _PROBLEMS_A_FILE)
    missing = [start for start in starts if not (folder / f"{start:08d}.parquet").exists()]
    if missing:
        with engines_for(policy, config.model, config.cluster) as engines:
            hold_start_policy(engines, config, policy)
            probe = encode_prompts(policy, [as_problem(problems[0])], config.model, 1)[0]
            sync_engines(engines, 0, probe, config.cluster.sync_tolerance)
            for start in _progress(missing, "sampling", len(starts)):
                chosen = problems.select(range(start, min(start + _PROBLEMS_A_FILE, len(problems))))
                columns = _sampled(engines, config, policy, chosen, start)
                rollout_table.write(folder / f"{start:08d}.parquet", columns)
    return folder


def hold_start_policy(engines: Engines, config: OfflineConfig, policy: str) -> None:
    """The trainer with the start policy."""
    engines.on_all_ranks("setup", policy, config.model, config.train, config.deepspeed, False)


def _sampled(
    engines: Engines, config: OfflineConfig, policy: str, problems: Dataset, first_group: int
) -> dict[str, Sequence[Any]]:
    sampling, tokenizer = config.sampling, load_tokenizer(policy)
    chosen = [as_problem(row) for row in problems]
    prompts = encode_prompts(policy, chosen, config.model, sampling.max_tokens)
    seed = config.responses.seed
    requests = group_requests(
        prompts, sampling.group_size, lambda g, s: request_seed(seed, "responses", 0, chosen[g].id, s)
    )
    settings = Sampling(sampling.temperature, sampling.max_tokens, stop_ids(tokenizer))
    completions = sample(engines, requests, settings, sampling.group_size)
    texts = decode_all(tokenizer, [c.token_ids for c in completions])
    return rollout_columns(chosen, requests, completions, texts, first_group, 0)


@stage("import")
def import_source(config: OfflineConfig, policy: str, sampled: Path | None = None) -> Path:
    """The source (or what was sampled), checked, tokenized, and grouped by problem; returns the stage's folder."""
    settings = config.responses
    if sampled is not None:
        settings = ResponsesSettings(source=str(sampled), max_bad_rows=settings.max_bad_rows)
    codec = PolicyCodec(policy, config.model)
    imported = home() / "responses" / f"{_name(settings)}-{_source_key(settings, codec)}" / "imported"
    if not imported.exists():
        with whole_directory(imported) as folder:
            report = import_responses(settings, codec, folder, folder / "parts")
            shutil.rmtree(folder / "parts")
            write_json(folder / "import.json", asdict(report))
    report = import_report(imported)
    BadRows(settings.max_bad_rows, report.bad_rows, report.bad_named).refuse_too_many()  # it may allow fewer by now
    return imported


def import_report(imported: Path) -> Imported:
    """What came of an import."""
    return Imported(**read_json(imported / "import.json"))


def _name(settings: ResponsesSettings) -> str:
    path = Path(settings.source)
    return path.parent.name.split("-")[0] if path.name == "rollouts" else path.stem or "responses"


def _source_key(settings: ResponsesSettings, codec: PolicyCodec) -> str:
    """Names the content of a source, and how it is read."""
    content = []
    for file in source_files(settings.source):
        with file.open("rb") as opened:
            content.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return fingerprint(
        [
            content or [settings.source, settings.split, settings.revision],
            settings.columns.model_dump(mode="json"),
            codec.key,
            SEGMENTER,
        ]
    )


@stage("grade")
def grade_responses(imported: Path) -> Path:
    """Grades what brought no grade along."""
    graded, responses = imported.parent / "graded", Responses(imported)
    with AnswerGrader() as grader:

        def grades(number: int) -> pa.Table:
            table = responses.table(number).select(["answer", "response", "grade"]).to_pydict()
            known = [None if grade is None else Grade(Outcome(grade), None) for grade in table["grade"]]
            new = [i for i, grade in enumerate(known) if grade is None]
            found = dict(zip(new, grader.grade([(table["answer"][i], table["response"][i]) for i in new]), strict=True))
            return shard_columns(grade_columns([known[i] or found[i] for i in range(len(known))]))

        _fill(graded, responses.shards, grades, "grading")
    return graded


@stage("judge")
def judge_responses(settings: JudgeSettings, scope: Scope, imported: Path, graded: Path) -> Path:
    """Verdicts on the responses that credit asks about, but for those that brought one along. Raises JudgeFailed when
    the judge abstains too often, shard after shard, ConfigError when it does not pass its gate."""
    decides = [judge_identity(settings, judging_model(settings)), settings.noise, scope, SEGMENTER]
    judged = imported.parent / f"judged-{fingerprint(decides)}"
    responses, shares = Responses(imported, graded), []
    if _missing(judged, responses.shards):
        with open_judge(settings) as judge:
            check_gate(settings, judge)
            judging = Judging(judge, scope)

            def verdicts(number: int) -> pa.Table:
                columns = verdict_columns(judging, responses.table(number))
                told = [status for status in columns["verdict_status"] if status is not None]
                shares.append(told.count(VerdictStatus.ABSTAINED) / len(told) if told else 0.0)
                stop_in_time(shares, settings, "shards", str(judged))
                return shard_columns(columns)

            _fill(judged, responses.shards, verdicts, "judging", calls_at_a_time(settings))
    return judged


def verdict_columns(judging: Judging, table: pa.Table) -> dict[str, list[Any]]:
    """The judge's columns of whole groups; verdicts that the data set brought along stand."""
    recorded = table.select(["first_error_step", "verdict_status"]).to_pydict()
    known = {}
    for row, (step, status) in enumerate(zip(*recorded.values(), strict=True)):
        if status is not None or step is not None:
            known[row] = Judgement(Verdict(step, VerdictStatus(status or VerdictStatus.OK)), cached=True)
    return judging.columns(table.select(JUDGED_COLUMNS).to_pydict(), known)


@stage("score")
def score_responses(config: OfflineConfig, policy: str, imported: Path) -> Path | None:
    """Log-probabilities of the start policy for the responses that brought none along; None where all did."""
    responses = Responses(imported)
    if not any(table.column("rollout_logprobs").null_count for table in responses):
        return None
    decides = [model_key(policy), config.sampling.temperature, config.model.dtype]
    scored = imported.parent / f"scored-{fingerprint(decides)}"
    if _missing(scored, responses.shards):
        with engines_for(policy, config.model, config.cluster) as engines:
            hold_start_policy(engines, config, policy)

            def logprobs(number: int) -> pa.Table:
                table = responses.table(number)
                known = table.select(["prompt_ids", "token_ids", "rollout_logprobs"]).to_pydict()
                new = [i for i, values in enumerate(known["rollout_logprobs"]) if values is None]
                rows = [scoring_row(known["prompt_ids"][i], known["token_ids"][i]) for i in new]
                budget, temperature = config.train.micro_batch_tokens, config.sampling.temperature
                found = dict(zip(new, score_rows(engines, rows, budget, temperature) if rows else [], strict=True))
                values = [found[i][0] if i in found else old for i, old in enumerate(known["rollout_logprobs"])]
                return shard_columns({"rollout_logprobs": values})

            _fill(scored, responses.shards, logprobs, "scoring")
    return scored


def problems_of(responses: Responses) -> Dataset:
    """The problems of a data set, one row each, as `problems.load_problems` gives them."""
    names = ("problem_id", "prompt", "answer", "reference", "domain")
    parts = [table.filter(pc.equal(table.column("sample"), 0)).select(names) for table in responses]
    return Dataset(pa.concat_tables(parts).rename_columns(["id", *names[1:]]))


def _missing(folder: Path, shards: int) -> list[int]:
    return [number for number in range(shards) if not shard_path(folder, number).exists()]


def _fill(folder: Path, shards: int, columns: Callable[[int], pa.Table], what: str, at_a_time: int = 1) -> None:
    """Writes the shards of a stage that are not there yet."""

    def fill(number: int) -> None:
        write_shard(folder, number, columns(number))

    missing = _missing(folder, shards)
    with ThreadPoolExecutor(at_a_time, what) as pool:
        try:
            for _ in _progress(pool.map(fill, missing), what, shards, shards - len(missing)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _progress(work: Iterable[R], what: str, total: int, done: int | None = None) -> Iterable[R]:
    started = total - len(work) if done is None and isinstance(work, list) else done or 0
    return tqdm(work, desc=what, total=total, initial=started, unit="shard", disable=None)
