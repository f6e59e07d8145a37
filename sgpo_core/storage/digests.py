"""Digests of files, written with them: what was damaged since is found, and not trained on."""

from __future__ import annotations

from pathlib import Path

import xxhash

from sgpo_core.storage.atomic import read_json, write_json

NAME = "digests.json"
_READ_BYTES = 1 << 24


def seal(folder: Path) -> None:
    """Notes the digest (XXH3, 128 bits) of every file below the folder."""
    write_json(folder / NAME, {str(file.relative_to(folder)): _digest(file) for file in _files(folder)})


def damage(folder: Path) -> str:
    """What of the noted files is not as `seal` found it, in words; "" where nothing is, or nothing was noted (by an
    earlier version)."""
    if not (folder / NAME).exists():
        return ""
    try:
        noted = dict(read_json(folder / NAME))
    except (ValueError, TypeError):
        return f"{NAME} can't be read"
    found = {str(file.relative_to(folder)): file for file in _files(folder)}
    for name, digest in noted.items():
        if name not in found:
            return f"{name} is missing"
        if _digest(found[name]) != digest:
            return f"{name} is not what was written"
    return ""


def note(path: Path, written: Path) -> None:
    """Before `written` takes the place of `path`: notes its digest beside it, and that of the file which is there, so
    that whichever of the two a crash leaves is known."""
    there = [_digest(path)] if path.exists() and is_as_written(path) else []
    write_json(_notes(path), [_digest(written), *there])


def is_as_written(path: Path) -> bool:
    """Whether a file is what `note` saw; also where nothing was noted, of a file that others wrote."""
    return not _notes(path).exists() or _digest(path) in _noted(path)


def _notes(path: Path) -> Path:
    return path.with_name(f".{path.name}.digests")


def _noted(path: Path) -> list[str]:
    try:
        return list(read_json(_notes(path)))
    except (OSError, ValueError, TypeError):
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / NAME)


def _digest(file: Path) -> str:
    hashed = xxhash.xxh3_128()
    with file.open("rb") as content:
        while block := content.read(_READ_BYTES):
            hashed.update(block)
    return hashed.hexdigest()
