"""Models by name: a folder, a folder below `home()/models`, or an id of the Hugging Face hub; everything that computes
gets a folder on this machine."""

from __future__ import annotations

import json
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.data import hub
from sgpo_core.storage.digests import NAME as DIGESTS
from sgpo_core.storage.digests import damage
from tasks.paths import home

_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt")  # no pickles


def models_home() -> Path:
    """Where models lie under a name of their own, and copies that stand in for models of the hub."""
    return home() / "models"


def model_folder(setting: str, model: str) -> Path:
    """The folder of a model: a path, a name in `models_home()`, or ORG/NAME[@REVISION] of the hub, which is downloaded
    once (huggingface_hub's cache, HF_TOKEN, HF_HUB_OFFLINE). Raises ConfigError, which names `setting` and the fix."""
    if (found := local_folder(model)) is not None:
        return undamaged(f"{setting}={model}", found)
    if not hub.is_id(model):
        raise ConfigError("; ".join(missing_model(setting, model)))
    name, _, revision = model.partition("@")
    try:
        folder = _downloaded(name, revision or None)
        if lacking := _lacking(folder):
            raise FileNotFoundError(f"there is no {lacking} in it")
    except Exception as error:
        raise ConfigError(
            f"{setting}={model}: can't be loaded from the Hugging Face hub: "
            f"{hub.sentence(error, 'model', name, revision)}. Without internet, put the model's folder (config.json, "
            f"*.safetensors, tokenizer files) at {_copy(model)}"
        ) from None
    return folder


def undamaged(named: str, folder: Path) -> Path:
    """The folder. Raises ConfigError, which begins with `named`, where a file is not what this project has written.
    (Models of others have no digests.)"""
    if what := damage(folder):
        raise ConfigError(
            f"{named}: {what} in {folder}: restore the file from a copy, or make the model anew; if it is you who has "
            f"changed it, remove {DIGESTS} there"
        )
    return folder


def _downloaded(name: str, revision: str | None) -> Path:
    """A commit's files, from the cache where the hub does not give them. Raises the errors of huggingface_hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = list(_PATTERNS)
    try:
        return Path(snapshot_download(name, revision=hub.ask("model", name, revision), allow_patterns=patterns))
    except Exception as error:
        try:
            kept = snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True)
        except LocalEntryNotFoundError:
            raise error from None
        if _lacking(Path(kept)):
            raise error from None
        hub.from_the_cache(error, "model", name, revision)
        return Path(kept)


def _lacking(folder: Path) -> str:
    """The first file that a model needs and has not, or nothing. (What others have downloaded may be a part of it.)"""
    if not (folder / "config.json").is_file():
        return "config.json"
    if (index := folder / "model.safetensors.index.json").is_file():
        parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return next((part for part in parts if not (folder / part).is_file()), "")
    return "" if any(folder.glob("*.safetensors")) else "*.safetensors"


def local_folder(model: str) -> Path | None:
    """Where a model lies on this machine without asking the hub; None where it does not."""
    for folder in (Path(model).expanduser(), _copy(model)):
        if (folder / "config.json").is_file():
            return folder.absolute()
    return None


def missing_model(setting: str, model: str) -> list[str]:
    """What is wrong with the model that a setting names: [] for one that is there, and for what may be on the hub."""
    if hub.is_id(model) or local_folder(model) is not None:
        return []
    folder = Path(model).expanduser()
    found = "no config.json in it" if folder.is_dir() else "nothing"
    by_name = f", or at {_copy(model)}" if "/" not in model else ""
    return [f"a Hugging Face model folder at {setting}={model}{by_name} (found {found})"]


def _copy(model: str) -> Path:
    return models_home() / model.partition("@")[0].replace("/", "--")
