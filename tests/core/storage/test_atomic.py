"""Files and folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgpo_core.storage.atomic import Damaged, atomic_directory, read_json, write_atomically, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*"))


def half_written(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk full")


def test_text_and_json(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a.txt", "ein ½\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_text(encoding="utf-8") == "ein ½\n"
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "a": Path("x")})
    assert read_json(tmp_path / "a.json") == {"a": "x", "b": [1, 2.5, None]}
    assert (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("value", [{}, {"metrics": {"x": 0.1, "ü": [1, None]}, "step": 12}, {"a": float("inf")}])
def test_one_bit_of_a_record_anywhere(tmp_path: Path, value: dict[str, object]) -> None:
    """All of them. What is in a record is as it was written, or it is not read."""
    file = tmp_path / "a.json"
    write_json(file, value)
    written, silent = file.read_bytes(), 0
    assert read_json(file) == value
    for bit in range(8 * len(written)):
        content = bytearray(written)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        try:
            found = read_json(file)
        except Damaged as error:
            assert str(file) in str(error)
        else:
            silent += 1
            # The digest's name has become another one, which stands for nothing; or an escape is spelled otherwise.
            assert {name: found[name] for name in value} == value and len(found) <= len(value) + 1
    assert silent < 48
    file.write_text('{"step": 1}')
    assert read_json(file) == {"step": 1}, "written by others, or by an earlier version"


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("old and long", "new"):
        write_text(tmp_path / "a", text)
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    write_text(tmp_path / "a", "old")
    for name in ("a", "b"):
        with pytest.raises(error):
            write_atomically(tmp_path / name, write)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("new")
        assert (tmp_path / "a").read_text() == "old"

    write_text(tmp_path / "a", "old")
    write_atomically(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "new"


def test_what_a_crash_left_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").write_text("of a process that was killed, and longer than the new text")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == ["a"]
    (tmp_path / ".d.partial").mkdir()
    (tmp_path / ".d.partial" / "stale").touch()
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "fresh").touch()
    assert names(tmp_path) == ["a", "d", "fresh"]


def test_a_directory_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "d") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / name).write_text(name)
            assert (tmp_path / "d" / "sub" / "old").exists() == (name == "new")  # the old one is there meanwhile
    assert names(tmp_path) == ["d", "new", "sub"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_directory_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "old").touch()
    for name in ("d", "e"):
        with pytest.raises(error), atomic_directory(tmp_path / name) as folder:
            (folder / "half").touch()
            raise error
    assert names(tmp_path) == ["d", "old"]
