"""The stages that get responses ready for offline training. Each is done once and kept, whatever trains on it later:

    sample ─┐
            ├─▶ import ──▶ grade ──▶ judge ──▶ log-probabilities     runs/responses/<data set>/<stage>
    source ─┘   check, group        (not GRPO)  (where they are missing)

A stage is named by what decides it, and works shard by shard: one that was stopped goes on with the next shard. What
was damaged since it was written is put aside, and made again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from tqdm import tqdm

from sgpo_core.config.base import fingerprint
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.offline import OfflineConfig, ResponsesSettings
from sgpo_core.data.problems import as_problem, request_seed
from sgpo_core.data.segmentation import SEGMENTER
from sgpo_core.grading.grader import GRADER, AnswerGrader
from sgpo_core.offline.checks import BadRows
from sgpo_core.offline.importer import Imported, import_responses
from sgpo_core.offline.sources import source_files
from sgpo_core.offline.store import Responses, shard_path, write_shard
from sgpo_core.rl.credit import Scope
from sgpo_core.rl.training_samples import forward_sample
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import atomic_directory, read_json, waiting_lock, write_json
from sgpo_core.storage.digests import is_as_written, is_whole, put_aside
from sgpo_core.storage.weights import weights_hash
from sgpo_core.types import RolloutGroup
from tasks.data import (
    PolicyCodec,
    drop_overlong_prompts,
    encode_prompts,
    load_tokenizer,
    open_problems,
    stop_ids,
)
from tasks.engines.cluster import Engines, engines_for
from tasks.engines.generation import generate_groups, group_requests
from tasks.engines.sync import sync_engines
from tasks.judges.group_judge import GroupJudge
from tasks.judges.judge_eval import check_gate
from tasks.judges.kinds import kind_of, open_judge, with_engines
from tasks.judges.verdict_cache import judge_identity
from tasks.judging import stop_in_time, warn_of_blind_judge
from tasks.paths import home
from tasks.rollout import rollout_group
from tasks.stage import plain_task
from tasks.training import token_logprobs
from tasks.workers.rollout_worker import Sampling

R = TypeVar("R")
_PROBLEMS_A_FILE = 128


def data_set_lock(config: OfflineConfig) -> AbstractContextManager[None]:
    """One process at a time gets the same responses ready; the others then find them."""
    same = [config.responses, config.data, config.model, config.sampling]
    name = fingerprint([settings.model_dump(mode="json", exclude={"problems"}) for settings in same])
    return waiting_lock(home() / "responses" / f".{name}.lock")


@plain_task("sample")
def sample_responses(config: OfflineConfig, policy: str, judge: JudgeSettings) -> Path:
    """`sampling.group_size` responses of the initial policy to every problem of `data`, as files of rollouts; returns
    their folder. `judge`: that of the stages after it."""
    sampling = config.sampling
    decides = [
        weights_hash(Path(policy)),
        config.model.model_dump(mode="json"),
        config.data.model_dump(mode="json"),
        sampling.model_dump(mode="json", exclude={"problems"}),
        config.responses.seed,
    ]
    folder = home() / "responses" / f"sampled-{fingerprint(decides)}" / "rollouts"
    problems = drop_overlong_prompts(open_problems(config.data), policy, config.model, sampling.max_tokens)
    starts = range(0, len(problems), _PROBLEMS_A_FILE)
    missing = [start for start in starts if not is_whole(folder / f"{start:08d}.parquet")]
    if missing:
        with engines_for(policy, config.model, config.cluster, with_engines(judge)) as engines:
            hold_initial_policy(engines, config, policy)
            probe = encode_prompts(policy, [as_problem(problems[0])], config.model, 1)[0]
            sync_engines(engines, 0, probe, config.cluster.probe_tolerance(config.model.dtype))
            for start in _progress(missing, "sampling", len(starts)):
                chosen = problems.select(range(start, min(start + _PROBLEMS_A_FILE, len(problems))))
                groups = _sampled(engines, config, policy, chosen, start)
                rollout_table.write(folder / f"{start:08d}.parquet", groups)
    return folder


def hold_initial_policy(engines: Engines, config: OfflineConfig, policy: str) -> None:
    """The trainer with the initial policy."""
    engines.on_all_ranks("setup", policy, config.model, config.train, config.deepspeed, False)


def _sampled(
    engines: Engines, config: OfflineConfig, policy: str, problems: Dataset, first_group: int
) -> list[RolloutGroup]:
    sampling, tokenizer, seed = config.sampling, load_tokenizer(policy), config.responses.seed
    chosen = [as_problem(row) for row in problems]
    prompts = encode_prompts(policy, chosen, config.model, sampling.max_tokens)
    requests = group_requests(
        prompts, sampling.group_size, lambda g, s: request_seed(seed, "responses", 0, chosen[g].id, s)
    )
    settings = Sampling(sampling.temperature, sampling.max_tokens, stop_ids(policy))
    responses = generate_groups(engines, tokenizer, requests, settings)
    return [
        rollout_group(first_group + g, *parts, policy_version=0)
        for g, parts in enumerate(zip(chosen, requests, responses, strict=True))
    ]


@plain_task("import")
def import_source(config: OfflineConfig, policy: str, sampled: Path | None = None) -> Path:
    """The source (or what was sampled), checked, tokenized, and grouped by problem; returns the stage's folder."""
    settings = config.responses
    if sampled is not None:
        settings = ResponsesSettings(
            source=str(sampled), max_bad_rows=settings.max_bad_rows, answer_form=config.data.answer_form
        )
    codec = PolicyCodec(policy, config.model)
    imported = home() / "responses" / f"{_name(settings)}-{_source_key(settings, codec)}" / "imported"
    if damaged := [file.name for file in sorted(imported.glob("*.arrow")) if not is_as_written(file)]:
        put_aside(imported, f"{damaged[0]} is not what was written")
    if not imported.exists():
        with atomic_directory(imported) as folder:
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
            settings.answer_form,
            codec.key,
            SEGMENTER,
        ]
    )


@plain_task("grade")
def grade_responses(imported: Path) -> Path:
    """Grades what brought no grade along."""
    stage, responses = imported.parent / f"graded-{fingerprint([GRADER])}", Responses(imported)
    needed = ["group", "answer", "answer_form", "response", "grade"]
    with AnswerGrader() as grader:

        def grades(number: int) -> pa.Table:
            groups = rollout_table.from_table(responses.table(number).select(needed))
            return rollout_table.to_table([grader.grade_group(group) for group in groups], rollout_table.GRADED)

        _fill(stage, responses.shards, grades, "grading")
    return stage


@plain_task("judge")
def judge_responses(settings: JudgeSettings, scope: Scope, imported: Path, graded: Path) -> Path:
    """Verdicts on the responses that credit asks about, but for those that brought one along. Raises JudgeFailed when
    the judge abstains too often, shard after shard, ConfigError when it does not pass its gate."""
    kind = kind_of(settings)
    decides = [judge_identity(settings, kind.model(settings)), settings.noise, scope, SEGMENTER]
    stage = imported.parent / f"judged-{fingerprint(decides)}"
    responses, shares = Responses(imported, graded), []
    prompts = (prompt for table in responses for prompt in table.column("prompt").to_pylist())
    warn_of_blind_judge(settings, scope, f"the responses in {imported.parent.name}", prompts)
    if _missing(stage, responses.shards):
        with open_judge(settings) as judge:
            check_gate(settings, judge)
            group_judge = GroupJudge(judge, scope)

            def verdicts(number: int) -> pa.Table:
                groups = judged_groups(group_judge, rollout_table.from_table(responses.table(number)))
                shares.append(_abstained_share(groups))
                stop_in_time(shares, settings, "shards", str(stage))
                return rollout_table.to_table(groups, rollout_table.JUDGED)

            # A shard is a large batch: of more than two, each would take as long as all of them.
            _fill(stage, responses.shards, verdicts, "judging", 2 if kind.local else kind.calls_at_a_time)
    return stage


def judged_groups(judge: GroupJudge, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
    """Whole groups, judged; verdicts that the data set brought along stand."""
    known = {
        (group.number, i): replace(rollout.judgment, cached=True)
        for group in groups
        for i, rollout in enumerate(group.rollouts)
        if rollout.judgment is not None
    }
    return judge.complete(groups, known)


def _abstained_share(groups: Sequence[RolloutGroup]) -> float:
    judged = [rollout.judgment.verdict for g in groups for rollout in g.rollouts if rollout.judgment is not None]
    return sum(verdict.abstained for verdict in judged) / len(judged) if judged else 0.0


@plain_task("logprobs")
def recompute_missing_logprobs(config: OfflineConfig, policy: str, imported: Path) -> Path | None:
    """Log-probabilities of the initial policy for the responses that brought none along; None where all did."""
    responses = Responses(imported)
    if not any(table.column("rollout_logprobs").null_count for table in responses):
        return None
    decides = [weights_hash(Path(policy)), config.sampling.temperature, config.model.dtype]
    stage = imported.parent / f"logprobs-{fingerprint(decides)}"
    if _missing(stage, responses.shards):
        with engines_for(policy, config.model, config.cluster) as engines:
            hold_initial_policy(engines, config, policy)

            def logprobs(number: int) -> pa.Table:
                known = responses.table(number).select(["prompt_ids", "token_ids", "rollout_logprobs"]).to_pydict()
                new = [i for i, values in enumerate(known["rollout_logprobs"]) if values is None]
                samples = [forward_sample(known["prompt_ids"][i], known["token_ids"][i]) for i in new]
                budget, temperature = config.train.micro_batch_tokens, config.sampling.temperature
                computed = token_logprobs(engines, samples, budget, temperature) if samples else []
                found = {i: tokens.logprobs for i, tokens in zip(new, computed, strict=True)}
                values = [found.get(i, old) for i, old in enumerate(known["rollout_logprobs"])]
                kind = rollout_table.SCHEMA.field("rollout_logprobs")
                return pa.table([pa.array(values, kind.type)], schema=pa.schema([kind]))

            _fill(stage, responses.shards, logprobs, "log-probabilities")
    return stage


def problems_of(imported: Path) -> Dataset:
    """The problems of an imported data set, one row each, as `problems.load_problems` gives them."""
    names = ("problem_id", "prompt", "answer", "reference", "domain", "answer_form")
    parts = [table.filter(pc.equal(table.column("sample"), 0)).select(names) for table in Responses(imported)]
    return Dataset(pa.concat_tables(parts).rename_columns(["id", *names[1:]]))


def _missing(folder: Path, shards: int) -> list[int]:
    return [number for number in range(shards) if not is_whole(shard_path(folder, number))]


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
