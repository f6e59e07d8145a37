"""Checkpoints of a run: saved whole, pruned to the newest, loaded on resume."""

from __future__ import annotations

import shutil
from pathlib import Path

from prefect import get_run_logger

from sgpo_core.config.base import ConfigError
from sgpo_core.evaluation.protocol import protocol_in_training
from sgpo_core.storage.atomic import atomic_directory, remove_atomically, write_text
from sgpo_core.storage.digests import damage, seal
from sgpo_core.storage.run_dir import RunPaths, best_checkpoint, iterations_saved, mean_accuracy, prune
from tasks.data import load_config, load_tokenizer
from tasks.engines.cluster import Engines
from tasks.run import Run
from tasks.services.environment import option
from tasks.stage import stage
from tasks.tracking.registry import Score, register
from tasks.workers.optimizer_state import holds_state


@stage("checkpoint")
def save_checkpoint(run: Run, iteration: int) -> None:
    """Weights and optimizer for a resume, and the policy alone for everyone else."""
    with atomic_directory(run.paths.checkpoint(iteration)) as folder:
        run.engines.on_all_ranks("save", str(folder / "engine"))
        export_policy(run.engines, run.policy, folder / "policy")
        seal(folder)
    prune(run.paths.checkpoints, run.config.checkpoint.keep, best_checkpoint(run.paths))


def last_checkpoint(run: Run) -> int:
    """Iteration of the newest checkpoint that is as it was written; 0 where there is none. Newer ones that are not are
    put aside and named: what was done since is done again, from the responses that were saved."""
    for iteration in reversed(iterations_saved(run.paths.checkpoints)):
        if _is_whole(run, iteration):
            return iteration
    return 0


def _is_whole(run: Run, iteration: int, part: str = ".") -> bool:
    """Whether this part of a checkpoint is as it was written; else the checkpoint is put aside."""
    folder = run.paths.checkpoint(iteration)
    if what := damage(folder / part):
        aside = folder.with_name(f".{folder.name}.damaged")
        get_run_logger().warning(f"checkpoint {folder}: {what}; it is now {aside.name}, and does not count")
        remove_atomically(aside)
        folder.rename(aside)
    return not what


def load_checkpoint(run: Run, iteration: int) -> None:
    """Whatever ranks and ZeRO stage it was written by. Raises ConfigError for one of an earlier version."""
    state = run.paths.checkpoint(iteration) / "engine"
    if not holds_state(state):
        raise ConfigError(
            f"checkpoint {state.parent} was written by an earlier version and can't be loaded: start over with "
            f"{option('fresh')}"
        )
    run.engines.on_all_ranks("load", str(state))


def newest_policy(paths: RunPaths) -> Path:
    """That of the last checkpoint."""
    return paths.checkpoint(iterations_saved(paths.checkpoints)[-1]) / "policy"


def keep_policy(run: Run, card: str) -> Path:
    """Copies the last checkpoint's policy to where a finished run keeps it; `card` becomes its README.md."""
    with atomic_directory(run.paths.policy) as folder:
        shutil.copytree(newest_policy(run.paths), folder, dirs_exist_ok=True)
        write_text(folder / "README.md", card)
    return run.paths.policy


def register_best(run: Run) -> None:
    """The best checkpoint becomes a version of the registered model that the settings name, and its candidate if it is
    better than the one before. Runs of a comparison do not register."""
    config = run.config
    model = config.checkpoint.model.replace("{preset}", config.preset)
    if not model or config.tags.sweep:
        return
    while (best := best_checkpoint(run.paths)) is not None and not _is_whole(run, best, "policy"):
        pass  # the best of those that are left
    if best is not None:
        score = Score(mean_accuracy(run.paths, best), protocol_in_training(config))
        register(model, run.paths.checkpoint(best) / "policy", run.tracker.run_id, score=score)


def export_policy(engines: Engines, initial_policy: str, folder: Path) -> None:
    """The trainer's weights in Hugging Face layout; configuration and tokenizer are those of the initial policy. Where
    adapters are trained, they are merged into the weights, and alone in the folder `adapter`. The folder has digests of
    its own, which go along with it wherever it is copied."""
    from safetensors import safe_open

    folder.mkdir(parents=True, exist_ok=True)
    engines.on_all_ranks("export", str(folder / "model.safetensors"))
    engines.on_all_ranks("export_adapter", str(folder / "adapter"))
    config = load_config(initial_policy)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        config.dtype = weights.get_tensor(next(iter(weights.keys()))).dtype  # loaders round to what it says
    config.save_pretrained(folder)
    load_tokenizer(initial_policy).save_pretrained(folder)
    if (generation := Path(initial_policy) / "generation_config.json").is_file():
        shutil.copy(generation, folder)  # which tokens end a response
    seal(folder)
