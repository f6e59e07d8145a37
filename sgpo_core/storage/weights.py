"""A policy as a folder in Hugging Face layout, and the hash that names what it computes."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from sgpo_core.config.base import ConfigError

_CONTENT = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_READ_BYTES = 1 << 24


def is_policy(folder: Path) -> bool:
    """Whether a folder holds weights that can be evaluated."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def weights_hash(folder: Path) -> str:
    """Ten hexadecimal digits of weights, configuration and tokenizer, wherever the folder lies. Raises ConfigError
    where there is no policy in it."""
    if not is_policy(folder):
        raise ConfigError(f"{folder} holds no policy: config.json and *.safetensors are wanted")
    files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern)})
    return _hash(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


def model_key(model: str) -> str:
    """Names the weights of a model: of a folder their hash, for they may be made anew under the same name; else the
    hub id itself."""
    return weights_hash(Path(model)) if is_policy(Path(model)) else model


def missing_model(setting: str, path: str) -> list[str]:
    """What is wrong with the model that a setting names: [] for a folder with a model, and for what may be an id of the
    Hugging Face hub."""
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    folder = Path(path).expanduser()
    if looks_local and not (folder / "config.json").is_file():
        found = "no config.json in it" if folder.is_dir() else "nothing"
        return [f"a Hugging Face model folder at {setting}={path} (found {found})"]
    return []


@lru_cache(maxsize=16)  # a large model is read once, not for everything that asks
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, size, _ in files:
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()[:10]
