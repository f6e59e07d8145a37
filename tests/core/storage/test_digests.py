"""What was damaged since it was written is found, wherever the bit is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sgpo_core.storage.digests import NAME, damage, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "engine/state").mkdir(parents=True)
    (tmp_path / "engine/state/a.pt").write_bytes(random.Random(0).randbytes(5000))
    (tmp_path / "engine/empty").write_bytes(b"")
    (tmp_path / "layout.json").write_text("{}")
    seal(tmp_path)
    return tmp_path


def test_what_is_whole(folder: Path) -> None:
    assert damage(folder) == ""
    (folder / NAME).unlink()
    assert damage(folder) == "", "written by an earlier version"


@pytest.mark.parametrize("seed", range(50))
def test_one_bit_anywhere(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    file = rng.choice([folder / "engine/state/a.pt", folder / "layout.json"])
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    assert damage(folder) == f"{file.relative_to(folder)} is not what was written"


def test_what_is_missing_and_what_is_new(folder: Path) -> None:
    (folder / "engine/.nfs0001").write_text("")
    assert damage(folder) == "", "somebody else's"
    (folder / "engine/empty").unlink()
    assert damage(folder) == "engine/empty is missing"


@pytest.mark.parametrize("content", ["", "[", "7", '{"a": "b"}'])
def test_digests_that_are_damaged_themselves(folder: Path, content: str) -> None:
    (folder / NAME).write_text(content)
    assert damage(folder)
