"""sgpo-offline: learn from responses that already exist, or that the initial policy writes once.

    sample or import ──▶ grade ──▶ judge ──▶ log-probabilities ──▶ statistics
                         (each done once and kept: many trainings share it)
                                                          │
          ┌───────────────────────────────────────────────┘
          └─▶ batch ──credit──▶ ──update──▶ weights, for every batch of every epoch
                              Ray + DeepSpeed     └─▶ evaluate every N, record, checkpoint every M ──▶ policy

The same command again goes on from where it was, or prints the result of a run that is complete.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("offline")

from pathlib import Path
from typing import Annotated, Any

from prefect import flow

from flows.deployment import explained, named_by
from flows.judge_training import ready
from flows.starting import initial_policy, start_or_resume
from sgpo_core.config.catalog import one_of
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.offline import SAMPLED, OfflineConfig, load_offline
from sgpo_core.config.overrides import Overrides
from tasks.checkpointing import save_checkpoint
from tasks.data import Benchmarks, ProblemSets, load_benchmarks, open_problems, refuse_overlap
from tasks.engines.cluster import keep_engines, outlived
from tasks.engines.faults import Restart
from tasks.evaluation import check_benchmarks, evaluate
from tasks.offline.prepare import (
    data_set_lock,
    grade_responses,
    import_source,
    judge_responses,
    problems_of,
    recompute_missing_logprobs,
    sample_responses,
)
from tasks.offline.training_set import TrainingSet, check_offline, log_statistics, look_at, take_batch
from tasks.progress import finish
from tasks.rewards import assign_credit
from tasks.rollout import sync_weights
from tasks.run import Run, begin_or_resume, finished_result, locked, open_run, run_paths, say_complete
from tasks.training import recompute_logprobs, update


@flow(name="sgpo-offline", flow_run_name=named_by(load_offline, "{0.run_id}"), persist_result=False)
@explained
def offline(
    preset: Annotated[str, one_of("offline")] = "tiny", overrides: Overrides = (), fresh: bool = False
) -> dict[str, Any]:
    """One offline run: learns from responses that exist, or that the initial policy writes once.

    Args:
        preset: Where the settings come from, a file of conf/offline.
        overrides: Settings that differ from the preset, each a key=value: algorithm=grpo, epochs=2.
            docs/settings.md lists them.
        fresh: Train anew; the stages of the data set are kept.
    """
    return run_offline(load_offline(preset, overrides), fresh)


def check(config: OfflineConfig) -> None:
    """Raises ConfigError, before anything starts, for what the run lacks, and for problems that can't be read."""
    check_offline(config)
    if finished_result(run_paths(config)) is None:
        load_benchmarks(config.eval.sets)
        if config.responses.source == SAMPLED:
            open_problems(config.data)


def run_offline(config: OfflineConfig, fresh: bool = False) -> dict[str, Any]:
    """The run itself; inside a flow."""
    check_offline(config)
    paths = run_paths(config)
    with locked(paths):
        if not fresh and (result := finished_result(paths)):
            say_complete(paths, result, result["iterations"])
            return result
        begin_or_resume(config, paths, fresh)
        benchmarks = load_benchmarks(config.eval.sets)

        def trained(restarts: list[Restart]) -> dict[str, Any]:
            policy = initial_policy(config)
            check_benchmarks(config, policy, benchmarks)
            data = TrainingSet(config, prepare(config, policy, benchmarks))
            look_at(data, paths, policy)
            sets = ProblemSets(data.problems, benchmarks)
            nobody = JudgeSettings()  # the responses bring their verdicts along
            with open_run(config, data.iterations, policy, nobody, sets, paths, restarts) as run:
                log_statistics(run)
                train(run, data)
                return finish(run)

        with keep_engines():
            return outlived(config.cluster.restarts, trained)


def prepare(config: OfflineConfig, policy: str, benchmarks: Benchmarks) -> list[Path]:
    """The stages of the data set, made where they are missing. Raises ConfigError where it has problems of the
    benchmarks."""
    with data_set_lock(config):
        judge = ready(config.asked_judge)
        sampled = sample_responses(config, policy, judge) if config.responses.source == SAMPLED else None
        imported = import_source(config, policy, sampled)
        refuse_overlap(ProblemSets(problems_of(imported), benchmarks), f"responses.source={config.responses.source}")
        graded = grade_responses(imported)
        scope = config.algorithm.credit.scope
        judged = None if scope == "none" else judge_responses(judge, scope, imported, graded)
        with_logprobs = recompute_missing_logprobs(config, policy, imported)
    return [stage for stage in (imported, graded, judged, with_logprobs) if stage is not None]


def train(run: Run, data: TrainingSet) -> None:
    """Every iteration that the last checkpoint has not seen."""
    progress, metrics = start_or_resume(run)
    for iteration in range(progress.done + 1, run.iterations + 1):
        metrics += take_batch(run, data, iteration)
        metrics += recompute_logprobs(run, iteration)
        metrics += assign_credit(run, iteration)
        metrics += update(run, iteration)
        if run.evaluates(iteration):
            metrics += sync_weights(run, iteration)
            metrics += evaluate(run, iteration)
        metrics = progress.record(iteration, metrics)
        if run.checkpoints(iteration):
            metrics += save_checkpoint(run, iteration)
