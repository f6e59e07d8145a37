"""How a run starts, online or offline: its policy, and its engines as they were left."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import get_run_logger

from flows import warm_start
from sgpo_core.config.base import ConfigError
from sgpo_core.config.run import TrainingConfig
from sgpo_core.config.warm_start import load_warm_start
from tasks.checkpointing import last_checkpoint, load_checkpoint
from tasks.evaluation import evaluate
from tasks.models.folders import model_folder
from tasks.models.policy_checks import check_policy
from tasks.progress import Progress
from tasks.rollout import sync_weights
from tasks.run import Run
from tasks.services.environment import option
from tasks.stage import IterationMetrics
from tasks.training import set_up_trainer


def initial_policy(config: TrainingConfig) -> str:
    """Folder of the policy to start from: one of the hub is downloaded, a missing warm start made on the run's own
    engines. Raises ConfigError where it can't be used with these settings."""
    model = config.model
    if model.path is not None:
        folder, named = str(model_folder("model.path", model.path)), f"model.path={model.path}"
    else:
        settings = load_warm_start(str(model.warm_start), [])
        shared = settings.model_copy(update={"cluster": config.cluster, "deepspeed": config.deepspeed})
        folder, named = warm_start.ready(shared), f"model.warm_start={model.warm_start}"
    check_policy(named, folder, model, config.cluster)
    return folder


def start_or_resume(run: Run, spent: Mapping[str, float] | None = None) -> tuple[Progress, IterationMetrics]:
    """Engines as the last checkpoint left them, or with the initial policy, evaluated; where the run stands, and the
    metrics that its next iteration begins with. `spent` are metrics of what the initial policy has cost."""
    done = last_checkpoint(run)
    if done > run.iterations:
        raise ConfigError(
            f"{run.paths.root} has a checkpoint of iteration {done}, and iterations={run.iterations} are fewer: set "
            f"iterations={done} or more, or start over with {option('fresh')}"
        )
    set_up_trainer(run)
    if done:
        get_run_logger().info(f"resuming after iteration {done}")
        load_checkpoint(run, done)
    run.tracker.redeliver(done)
    progress, metrics = Progress(run, done), IterationMetrics(sync_weights(run, done))
    if done:
        return progress, IterationMetrics()
    metrics += dict(spent or {})
    metrics += evaluate(run, 0)
    return progress, progress.record(0, metrics)
