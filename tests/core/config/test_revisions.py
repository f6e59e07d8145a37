"""Every model and data set of the hub that presets and code name is fixed to a commit, or the file says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgpo_core.config.catalog import CONF
from sgpo_core.judges import processbench

ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\S+))?")
COMMIT = re.compile("[0-9a-f]{40}")
REASON = "No revision is pinned"
ROOT = CONF.parent


def named(value: Any, revision: str | None = None) -> Iterator[tuple[str, str | None]]:
    """(id, revision) of what a file of conf/ names of the hub: after an @, or in `revision` beside it. A text may be an
    override, `model.path=ORG/NAME`; what stands in `defaults` is of conf/ itself."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from () if key == "defaults" else named(inner, value.get("revision"))
    elif isinstance(value, list):
        for inner in value:
            yield from named(inner)
    elif isinstance(value, str) and (found := ID.fullmatch(value.rpartition("=")[2])):
        yield found[1], found[2] or revision


def ids_of(file: Path) -> list[tuple[str, str | None]]:
    return list(named(yaml.safe_load(file.read_text(encoding="utf-8"))))


FILES = [file for file in sorted(CONF.rglob("*.yaml")) if ids_of(file)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONF).as_posix())
def test_a_preset_pins_or_says_why_not(file: Path) -> None:
    loose = [name for name, revision in ids_of(file) if not COMMIT.fullmatch(revision or "")]
    reason = any(line.startswith("#") and REASON in line for line in file.read_text(encoding="utf-8").splitlines())
    assert bool(loose) == reason, f"a commit is missing for {loose}" if loose else f"{REASON!r} is not true"


def test_one_repository_has_one_revision() -> None:
    revisions: dict[str, set[str | None]] = {}
    for name, revision in [found for file in FILES for found in ids_of(file)]:
        revisions.setdefault(name, set()).add(revision)
    assert {name: found for name, found in revisions.items() if len(found) > 1} == {}
    assert {"Qwen/Qwen2.5-7B-Instruct", "openai/gsm8k", "Idavidrein/gpqa", "math-ai/minervamath"} <= set(revisions)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path: org/name", ("org/name", None)),
        ("path: org/name@main", ("org/name", "main")),
        ("judge: {model: org/na.me-2@1}", ("org/na.me-2", "1")),
        ("sets: {x: {data: {source: org/name, revision: abc}}}", ("org/name", "abc")),
        ("{revision: abc, inner: {source: org/name}}", ("org/name", None)),
        ("runs: [model.path=org/name@1]", ("org/name", "1")),
        ("defaults: [org/name]", None),
        ("url: https://api.openai.com/v1", None),
        ("source: problems.jsonl", None),
    ],
)
def test_the_search_itself(text: str, found: tuple[str, str | None] | None) -> None:
    assert list(named(yaml.safe_load(text))) == ([found] if found else [])


def test_processbench_is_pinned() -> None:
    assert COMMIT.fullmatch(processbench.HUB_REVISION)


def test_the_page_on_benchmarks_says_what_is_pinned() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    said = {row[1]: row[2] == "yes" for row in re.finditer(r"^\| `(\w+)` .*/.*\| (yes|no) \|$", text, re.MULTILINE)}
    files = {name: ids_of(CONF / f"eval/{name}.yaml") for name in said}
    assert len(said) > 8
    assert said == {name: bool(COMMIT.fullmatch(found[0][1] or "")) for name, found in files.items()}
