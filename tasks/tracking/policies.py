"""POLICY on the command line: a folder, a run or a warm start of ours, a registered model, or an id of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.data import hub
from sgpo_core.storage.run_dir import RunPaths, best_checkpoint
from sgpo_core.storage.weights import is_policy, weights_hash
from tasks.models.folders import local_folder, model_folder, models_home, undamaged
from tasks.paths import home, run_folders
from tasks.tracking import registry
from tasks.tracking.registry import Version


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights to evaluate: `name` as it was asked for, a local folder, its hash, and the registry's version, if any."""

    name: str
    folder: str
    weights: str
    version: Version | None = None


def resolve(name: str) -> Policy:
    """What a POLICY stands for. Raises ConfigError that says what was looked for."""
    if name.startswith("models:/"):
        return registered(registry.find(name))
    for folder in _places(name):
        if is_policy(folder):
            return Policy(name, str(undamaged(f"POLICY={name}", folder)), weights_hash(folder))
    if hub.is_id(name) or local_folder(name) is not None:
        folder = model_folder("POLICY", name)
        return Policy(name, str(folder), weights_hash(folder))
    raise ConfigError(
        f"POLICY={name}: no folder with config.json and *.safetensors, no run or warm start below {home()}, "
        f"no model in {models_home()}, neither models:/NAME@ALIAS nor ORG/NAME[@REVISION] of the Hugging Face hub"
    )


def registered(version: Version) -> Policy:
    """Raises ConfigError where its files are not those that were registered."""
    folder, named = version.folder(), f"version {version.version} of {version.model}"
    return Policy(version.label, str(undamaged(named, folder)), weights_hash(folder), version)


def _places(name: str) -> list[Path]:
    """A folder itself, a warm start by its id, or a run's best checkpoint by its folder or its id."""
    best = [(paths, best_checkpoint(paths)) for paths in map(RunPaths, run_folders(name)) if paths.root.is_dir()]
    return [
        Path(name).expanduser(),
        *([home() / "warm-starts" / name] if "/" not in name else ()),
        *(paths.checkpoint(iteration) / "policy" for paths, iteration in best if iteration),
    ]
