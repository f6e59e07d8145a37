"""sgpo-online: learn from fresh responses, with SGPO, GRPO, or another algorithm of conf/algorithm.

    problems ──generate──▶ rollouts ──grade──▶ ──judge──▶ ──credit──▶ ──update──▶ weights ──sync──┐
                ▲ Ray + vLLM                                      Ray + DeepSpeed                 │
                └───────────────────── evaluate every N, record, checkpoint every M ──────────────┘

With async_level=1 the responses of the next iteration are generated while this one trains.
The same command again goes on from the last checkpoint, or prints the result of a run that is complete.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("online")

from typing import Annotated, Any

from prefect import flow, get_run_logger

from flows.deployment import explained, named_by
from flows.judge_training import ready
from flows.offline import run_offline
from flows.starting import initial_policy, start_or_resume
from sgpo_core.config.catalog import one_of
from sgpo_core.config.offline import offline_first
from sgpo_core.config.overrides import Overrides
from sgpo_core.config.run import RunConfig, load_run
from tasks.ahead import generating_ahead
from tasks.checkpointing import save_checkpoint
from tasks.data import ProblemSets, drop_overlong_prompts, load_problem_sets
from tasks.engines.cluster import keep_engines, outlived
from tasks.engines.faults import Restart
from tasks.evaluation import check_benchmarks, evaluate
from tasks.judging import check_judge, judge, warn_of_blind_judge
from tasks.models.folders import model_folder
from tasks.offline.training_set import tokens_spent, trained_policy
from tasks.preflight import check_resources
from tasks.progress import finish
from tasks.rewards import assign_credit, grade
from tasks.rollout import generate, sampling_rounds, sync_weights
from tasks.run import Run, begin_or_resume, finished_result, locked, open_run, run_paths, say_complete
from tasks.training import recompute_logprobs, update


@flow(name="sgpo-online", flow_run_name=named_by(load_run, "{0.run_id}"), persist_result=False)
@explained
def online(
    preset: Annotated[str, one_of("online")] = "tiny", overrides: Overrides = (), fresh: bool = False
) -> dict[str, Any]:
    """One online run: learns from fresh responses.

    Args:
        preset: Where the settings come from, a file of conf/online.
        overrides: Settings that differ from the preset, each a key=value: algorithm=grpo, train.lr=1e-5.
            docs/settings.md lists them.
        fresh: Start over instead of going on from the last checkpoint.
    """
    config = load_run(preset, overrides)
    check_resources(config)
    paths = run_paths(config)
    with locked(paths):
        if not fresh and (result := finished_result(paths, config.iterations)):
            say_complete(paths, result, config.iterations)
            return result
        begin_or_resume(config, paths, fresh)
        sets = load_problem_sets(config)

        def trained(restarts: list[Restart]) -> dict[str, Any]:
            policy, spent = initial_policy_of(config)
            check_benchmarks(config, policy, sets.benchmarks)
            train_set = drop_overlong_prompts(sets.train, policy, config.model, config.sampling.max_tokens)
            fitting = ProblemSets(train_set, sets.benchmarks)
            with open_run(
                config, config.iterations, policy, ready(config.asked_judge), fitting, paths, restarts
            ) as run:
                train(run, spent)
                return finish(run)

        with keep_engines():
            return outlived(config.cluster.restarts, trained)


def check(config: RunConfig) -> None:
    """Raises ConfigError, before anything starts, for what the run lacks, and for problems that can't be used."""
    check_resources(config)
    if finished_result(run_paths(config), config.iterations) is None:
        load_problem_sets(config)


def initial_policy_of(config: RunConfig) -> tuple[str, dict[str, float]]:
    """The policy to start from, and metrics of what it has cost: an offline run's, where one is to come first."""
    first = offline_first(config)
    if first is None:
        return initial_policy(config), {}
    folder = run_offline(first)["run_dir"]
    return str(model_folder("the offline run's policy", trained_policy(folder))), tokens_spent(folder)


def train(run: Run, spent: dict[str, float]) -> None:
    """Every iteration that the last checkpoint has not seen. `spent`: metrics of what the initial policy has cost."""
    if run.problems.info.description:
        get_run_logger().warning(f"{run.config.data.source}: {run.problems.info.description}")
    source, scope = f"data.source={run.config.data.source}", run.config.algorithm.credit.scope
    warn_of_blind_judge(run.config.judge, scope, source, run.problems["prompt"])
    progress, metrics = start_or_resume(run, spent)
    with generating_ahead(run) as ahead:
        for iteration in range(progress.done + 1, run.iterations + 1):
            for number in sampling_rounds(run, iteration):
                metrics += generate(run, iteration, number)
                metrics += grade(run, iteration)
            ahead.begin(iteration + 1)  # at the start; later it has been begun, and ended, in the iteration before
            metrics += judge(run, iteration)
            metrics += recompute_logprobs(run, iteration)
            metrics += assign_credit(run, iteration)
            metrics += update(run, iteration)
            metrics += ahead.end()
            metrics += sync_weights(run, iteration)
            if run.evaluates(iteration):
                metrics += evaluate(run, iteration)
            ahead.begin(iteration + 2)
            metrics = progress.record(iteration, metrics)
            check_judge(run, iteration)
            if run.checkpoints(iteration):
                metrics += save_checkpoint(run, iteration)
