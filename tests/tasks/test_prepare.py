"""Stages that get recorded responses ready, on files and without an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sgpo_core.config.offline import load_offline
from sgpo_core.offline.store import Responses
from tasks.offline import prepare
from tests.small_models import save_small_model


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path / "home"))
    return str(save_small_model(tmp_path / "policy"))


def grades(policy: str, *overrides: str, sampled: Path | None = None) -> tuple[Path, list[str]]:
    imported = prepare.import_source.fn(load_offline("tiny", list(overrides)), policy, sampled)
    graded = prepare.grade_responses.fn(imported)
    return imported, [grade for table in Responses(imported, graded) for grade in table.column("grade").to_pylist()]


def test_responses_are_graded_in_the_form_that_they_answer_in(policy: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"problem_id": "p", "prompt": "2 + 3", "answer": "5", "response": f"2 + 3 = 5\n{end}"}
        for end in ("#### 5", "#### 6", r"\boxed{5}")
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    source = f"responses.source={file}"
    boxed, as_boxed = grades(policy, source)
    hashes, as_hashes = grades(policy, source, "responses.answer_form=hashes")
    assert as_boxed == ["unparsable", "unparsable", "correct"]
    assert as_hashes == ["correct", "wrong", "unparsable"] and hashes != boxed
    assert grades(policy, "data.answer_form=hashes", sampled=file)[1] == as_hashes
