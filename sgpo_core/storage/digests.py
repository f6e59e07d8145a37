"""Digests of files, written with them: what was damaged since is found, and not trained on."""

from __future__ import annotations

import logging
from pathlib import Path

import xxhash

from sgpo_core.storage.atomic import read_json, remove_atomically, write_json

NAME = "digests.json"
_READ_BYTES = 1 << 24

log = logging.getLogger("sgpo.storage")


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
    return _difference(noted, folder)


def damage_of_copy(copy: Path, folder: Path, part: str) -> str:
    """The same of a copy of a folder `part` inside the sealed one. Further files in the copy do not matter."""
    try:
        noted = dict(read_json(folder / NAME))
    except (OSError, ValueError, TypeError):
        return ""  # then nothing is known of it
    inside = {name.removeprefix(f"{part}/"): digest for name, digest in noted.items() if name.startswith(f"{part}/")}
    return _difference(inside, copy)


def _difference(noted: dict[str, str], folder: Path) -> str:
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


def is_whole(path: Path) -> bool:
    """Whether a file is there as `note` saw it. One that is damaged is put aside with a warning, and is not there then:
    for what can be made again."""
    if path.exists() and not is_as_written(path):
        put_aside(path, "it is not what was written")
    return path.exists()


def put_aside(path: Path, what: str) -> None:
    """Renames a damaged file or folder, in place of the one that was put aside before."""
    aside = path.with_name(f".{path.name}.damaged")
    log.warning("%s: %s; it is now %s, and made again", path, what, aside.name)
    if path.is_dir():
        remove_atomically(aside)
    path.replace(aside)


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
