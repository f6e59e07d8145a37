"""A policy as a folder in Hugging Face layout, and the hash that names what it computes."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from sgpo_core.config.base import ConfigError

_CONTENT = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
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


@lru_cache(maxsize=16)  # a large model is read once, not for everything that asks
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, size, _ in files:
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()[:10]
