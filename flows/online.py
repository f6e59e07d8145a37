"""sgpo-online: learn from fresh responses, with SGPO, GRPO, or another algorithm of conf/algorithm.

    problems ──generate──▶ rollouts ──grade──▶ ──judge──▶ ──credit──▶ ──update──▶ weights ──sync──┐
                ▲ Ray + vLLM                                      Ray + DeepSpeed                 │
                └───────────────────── evaluate every N, record, checkpoint every M ──────────────┘

The same command again goes on from the last checkpoint, or prints the result of a run that is complete.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger

from flows import cli
from flows.judge_training import ready
from flows.offline import run_offline
from flows.starting import named_by, start_or_resume, start_policy
from sgpo_core.config import RunConfig, load_run
from sgpo_core.offline import offline_first
from tasks.checkpointing import save_checkpoint
from tasks.cluster import keep_engines
from tasks.credit import assign_credit
from tasks.data import load_problem_sets, that_fit
from tasks.evaluation import evaluate
from tasks.grading import grade
from tasks.judging import check_judge, judge
from tasks.offline import tokens_spent, trained_policy
from tasks.planning import check_resources
from tasks.progress import finish, record
from tasks.rollout import generate, sampling_rounds, sync_weights
from tasks.run import Run, finished_result, locked, open_run, run_paths
from tasks.training import score, update


@flow(name="sgpo-online", flow_run_name=named_by(load_run), persist_result=False)
def online(preset: str = "tiny", overrides: list[str] | None = None, fresh: bool = False) -> dict[str, Any]:
    """One online run of a preset in conf/online. `fresh` starts over instead of resuming."""
    config = load_run(preset, overrides or [])
    check_resources(config)
    paths = run_paths(config)
    with locked(paths, fresh):
        if result := finished_result(paths):
            get_run_logger().info(f"complete already: {paths.root} (fresh=true starts over)")
            return result
        sets = load_problem_sets(config)
        with keep_engines():
            policy, spent = begin(config)
            sets = that_fit(sets, policy, config)
            with open_run(config, config.iterations, policy, ready(config.judge), sets, paths) as run:
                train(run, spent)
                return finish(run)


def begin(config: RunConfig) -> tuple[str, dict[str, float]]:
    """The policy to start from, and metrics of what it has cost: an offline run's, where one is to come first."""
    first = offline_first(config)
    if first is None:
        return start_policy(config), {}
    folder = run_offline(first)["run_dir"]
    return trained_policy(folder), tokens_spent(folder)


def train(run: Run, spent: dict[str, float]) -> None:
    """Every iteration that the last checkpoint has not seen. `spent`: metrics of what the start policy has cost."""
    log = get_run_logger()
    if run.problems.info.description:
        log.warning(f"{run.config.data.source}: {run.problems.info.description}")
    done = start_or_resume(run, spent)
    for iteration in range(done + 1, run.iterations + 1):
        for number in sampling_rounds(run, iteration):
            generate(run, iteration, number)
            grade(run, iteration)
        judge(run, iteration)
        score(run, iteration)
        assign_credit(run, iteration)
        update(run, iteration)
        sync_weights(run, iteration)
        if run.evaluates(iteration):
            evaluate(run, iteration)
        log.info(record(run, iteration))
        check_judge(run, iteration)
        if run.checkpoints(iteration):
            save_checkpoint(run, iteration)


if __name__ == "__main__":
    cli.main("online", __doc__ or "", "online", RunConfig, load_run, online, check_resources)
