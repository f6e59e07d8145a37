"""Files that appear whole or not at all: written aside, flushed to the disk, renamed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

_DIGEST = "digest"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, then puts the result in its place.

    A crash leaves the old file, or none; the temporary one is overwritten by the next attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        _flush(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk stays usable
        raise
    os.replace(temporary, path)
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all."""
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


class Damaged(ValueError):
    """A file that was changed since it was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not what was written: restore it from a copy, or start over")


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, keys sorted; what JSON does not know (paths) is written as text. A dictionary gets its own
    digest as one more key."""
    value = json.loads(json.dumps(value, default=str))
    if isinstance(value, dict):
        value[_DIGEST] = _digest_of(value)
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` has written. Raises Damaged where a digest says that it is not, or where it is no JSON."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        raise Damaged(path) from None
    if isinstance(value, dict) and (noted := value.pop(_DIGEST, None)) is not None and noted != _digest_of(value):
        raise Damaged(path)
    return value


def _digest_of(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path` when the block ends without an error; replaces what was there."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _flush(file)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    remove_atomically(path)
    os.rename(temporary, path)
    _flush(path.parent)


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Waits while another process is in a block with the same path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_atomically(path: Path) -> None:
    """Removes a folder so that a crash in between leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    if path.exists():
        os.rename(path, doomed)
        shutil.rmtree(doomed)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
