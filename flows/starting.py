"""How a run starts, online or offline: its policy, and its engines as they were left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prefect import get_run_logger, runtime

from flows import warm_start
from sgpo_core.config import ConfigError, TrainingConfig, load_warm_start
from tasks.checkpointing import load_checkpoint
from tasks.evaluation import evaluate
from tasks.progress import record
from tasks.rollout import sync_weights
from tasks.run import Run, last_checkpoint
from tasks.training import set_up_trainer


def named_by(load: Callable[[str, list[str]], TrainingConfig]) -> Callable[[], str]:
    """A flow run's name: the id of the run that `load` makes of its parameters, so that Prefect, MLflow and the run's
    folder have one name for it."""

    def run_name() -> str:
        given = runtime.flow_run.parameters
        try:
            return load(given["preset"], given["overrides"] or []).run_id
        except ConfigError:
            return str(given["preset"])

    return run_name


def start_policy(config: TrainingConfig) -> str:
    """Folder or hub id of the policy to start from; a missing warm start is made on the run's own engines."""
    if config.model.path is not None:
        return config.model.path
    settings = load_warm_start(str(config.model.warm_start), [])
    shared = settings.model_copy(update={"cluster": config.cluster, "deepspeed": config.deepspeed})
    return str(warm_start.make(shared)["run_dir"])


def start_or_resume(run: Run, spent: Mapping[str, float] | None = None) -> int:
    """Engines as the last checkpoint left them, or with the start policy, evaluated; returns the iterations done.
    `spent` are metrics of what the start policy has cost."""
    log, done = get_run_logger(), last_checkpoint(run)
    set_up_trainer(run)
    if done:
        log.info(f"resuming after iteration {done}")
        load_checkpoint(run, done)
    run.resume_after(done)
    sync_weights(run, done)
    if not done:
        run.metrics |= spent or {}
        evaluate(run, 0)
        log.info(record(run, 0))
    return done
