"""Models by name: a folder, a folder below `home()/models`, or an id of the Hugging Face hub; everything that computes
gets a folder on this machine."""

from __future__ import annotations

from pathlib import Path

from sgpo_core.config.base import ConfigError
from tasks.paths import home

_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt")  # no pickles


def models_home() -> Path:
    """Where models lie under a name of their own, and copies that stand in for models of the hub."""
    return home() / "models"


def model_folder(setting: str, model: str) -> Path:
    """The folder of a model: a path, a name in `models_home()`, or ORG/NAME[@REVISION] of the hub, which is downloaded
    once (huggingface_hub's cache, HF_TOKEN, HF_HUB_OFFLINE). Raises ConfigError, which names `setting` and the fix."""
    if (found := local_folder(model)) is not None:
        return found
    if not is_hub_id(model):
        raise ConfigError("; ".join(missing_model(setting, model)))
    from huggingface_hub import snapshot_download

    name, _, revision = model.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_PATTERNS)))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ConfigError(
            f"{setting}={model}: can't be loaded from the Hugging Face hub ({type(error).__name__}: {reason}). "
            f"Without internet, put the model's folder (config.json, *.safetensors, tokenizer files) at "
            f"{_copy(model)}"
        ) from None


def local_folder(model: str) -> Path | None:
    """Where a model lies on this machine without asking the hub; None where it does not."""
    for folder in (Path(model).expanduser(), _copy(model)):
        if (folder / "config.json").is_file():
            return folder.absolute()
    return None


def missing_model(setting: str, model: str) -> list[str]:
    """What is wrong with the model that a setting names: [] for one that is there, and for what may be on the hub."""
    if is_hub_id(model) or local_folder(model) is not None:
        return []
    folder = Path(model).expanduser()
    found = "no config.json in it" if folder.is_dir() else "nothing"
    by_name = f", or at {_copy(model)}" if "/" not in model else ""
    return [f"a Hugging Face model folder at {setting}={model}{by_name} (found {found})"]


def is_hub_id(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def _copy(model: str) -> Path:
    return models_home() / model.partition("@")[0].replace("/", "--")
