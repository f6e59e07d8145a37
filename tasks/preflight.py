"""What a run needs, against what is there: seconds, before any engine starts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.run import TrainingConfig
from sgpo_core.config.training import ClusterSettings
from sgpo_core.judges.processbench import load
from tasks.gpus import Device, count_gpus, devices, missing_gpus
from tasks.judges.kinds import kind_of
from tasks.models.folders import local_folder, missing_model
from tasks.models.policy_checks import check_policy
from tasks.paths import home
from tasks.sizing import existing, gib_on_a_gpu, sizing_problems, this_machine
from tasks.tracking.server import check_reachable, tracking_uri

_FREE_DISK_MIB = 512


def check_resources(config: TrainingConfig) -> None:
    """Raises ConfigError that names every missing resource: the model, GPUs, disk, the tracking server; and what is
    wrong with a model that is on this machine."""
    problems = [*_model_problems(config.model), *_cluster_problems(config.cluster, config.asked_judge)]
    problems += [*kind_of(config.asked_judge).missing(config.asked_judge), *_disk_problems(), *_gpu_problems(config)]
    if problems:
        raise ConfigError(f"preset {config.preset} needs " + "; ".join(problems))
    if config.model.path is not None and (folder := local_folder(config.model.path)) is not None:
        check_policy(f"model.path={config.model.path}", folder, config.model, config.cluster)
    if config.asked_judge.min_f1:
        load(config.asked_judge.gate_data, setting="judge.gate_data")
    check_reachable(tracking_uri())


def check_parallel(runs: int, cluster: ClusterSettings, judge: JudgeSettings) -> None:
    """Raises ConfigError when the machine has no room for that many runs side by side."""
    if runs == 1 or os.environ.get("RAY_ADDRESS"):
        return
    gpus = cluster.gpus + judge.gpus
    each = gpus or max(
        cluster.rollout_actors * cluster.rollout_threads, cluster.trainer_ranks * cluster.trainer_threads
    )
    there, unit = (count_gpus(), "GPUs") if gpus else (os.cpu_count() or 1, "CPU cores")
    if runs * each > there:
        lower = "the GPUs of a run (cluster=..., judge.engine)" if gpus else "cluster.rollout_actors, cluster.*_threads"
        wanted = f"parallel={runs} runs with {each} {unit} each need {runs * each} (found {there})"
        raise ConfigError(f"{wanted}: lower parallel, or {lower}")


def check_evaluation(config: EvaluationConfig) -> None:
    """Raises ConfigError that names every missing resource of an evaluation, whatever its policy."""
    cluster = config.cluster
    problems = [*_cluster_problems(cluster, None), *_disk_problems()]
    problems += _engines_blocked(cluster.rollout_actors * cluster.rollout_gpus, cluster.gpu_memory_utilization)
    if problems:
        raise ConfigError("the evaluation needs " + "; ".join(problems))
    check_reachable(tracking_uri())


def _gpu_problems(config: TrainingConfig) -> list[str]:
    """What a run on this machine's own GPUs lacks besides their number; [] for a run on the CPU or on a cluster."""
    if config.cluster.gpus == 0 or os.environ.get("RAY_ADDRESS") or not (found := devices()):
        return []
    machine = this_machine(config)
    problems = []
    if machine and not _holds_engines():
        wanted = config.cluster.gpus + config.asked_judge.gpus
        problems += _busy(found, wanted, gib_on_a_gpu(config, machine))
    return problems + (sizing_problems(config, machine) if machine else [])


def _engines_blocked(wanted: int, share: float) -> list[str]:
    """Where engines by themselves find too few GPUs of which they could take their share."""
    if not wanted or os.environ.get("RAY_ADDRESS") or _holds_engines() or not (found := devices()):
        return []
    return _busy(found, wanted, share * min(device.memory for device in found))


def _holds_engines() -> bool:
    """Whether this process has engines up, as a sweep has between its runs: GPUs are in use by itself then."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _busy(found: list[Device], wanted: int, gib: float) -> list[str]:
    """GPUs of which somebody else has too much, where the others are too few."""
    busy = [device for device in found if device.free < gib]
    if not busy or len(found) - len(busy) >= wanted or min(device.memory for device in found) < gib:
        return []  # too small, whoever uses them, is said of the run's needs
    told = ", ".join(f"GPU {d.number} has {d.free:.0f} of {d.memory:.0f} GiB free" for d in busy)
    return [
        f"{wanted} GPUs with {gib:.0f} GiB that nobody else uses ({told}): end what runs there, or name others in "
        "CUDA_VISIBLE_DEVICES"
    ]


def _disk_problems() -> list[str]:
    free = shutil.disk_usage(existing(home())).free // 2**20
    if free >= _FREE_DISK_MIB:
        return []
    return [f"{_FREE_DISK_MIB} MiB of free disk in {home()} (found {free}); SGPO_HOME names another folder"]


def _model_problems(model: ModelSettings) -> list[str]:
    if (model.path is None) == (model.warm_start is None):
        return ["a policy to start from: set just one of model.path and model.warm_start"]
    if model.path is None:
        return []
    return missing_model("model.path", model.path)


def check_judge(judge: JudgeSettings) -> None:
    """The same for a judge by itself."""
    problems = kind_of(judge).missing(judge)
    if not os.environ.get("RAY_ADDRESS") and (wanted := judge.gpus) > (gpus := count_gpus()):
        problems.append(f"{wanted} GPUs: {judge.engine.actors} engines x {judge.engine.gpus} (found {gpus})")
    problems += _engines_blocked(judge.gpus, judge.engine.gpu_memory_utilization)
    if problems:
        raise ConfigError(f"judge {judge.name} needs " + "; ".join(problems))
    check_reachable(tracking_uri())


def _cluster_problems(cluster: ClusterSettings, judge: JudgeSettings | None) -> list[str]:
    """Of a run with this judge; None: of an evaluation, which has neither judge nor trainers."""
    problems = missing_gpus(cluster, judge)
    sync_dir = Path(cluster.sync_dir)
    if not sync_dir.is_dir() or not os.access(sync_dir, os.W_OK):
        problems.append(f"a writable folder at cluster.sync_dir={cluster.sync_dir}")
    return problems
