"""The table of hard cases, graded by the real grader in its child processes."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from sgpo_core.grading.cases import as_markdown, load_cases
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.types import Outcome

ROOT = Path(__file__).resolve().parents[3]
CASES = load_cases()
DEADLINE_S = 4.0


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """Of all cases, by two children that take them in turn."""
    with AnswerGrader(workers=2, deadline_s=DEADLINE_S) as grader:
        return [grade.outcome for grade in grader.grade([(case.gold, case.response) for case in CASES])]


def test_the_table_is_long_and_says_why() -> None:
    assert len(CASES) >= 150
    assert all(case.why for case in CASES)
    assert len({(case.gold, case.response) for case in CASES}) == len(CASES)
    known_wrong = [case for case in CASES if case.known_wrong]
    assert len(known_wrong) < len(CASES) / 15


def test_every_case_comes_out_as_the_table_says(outcomes: list[Outcome]) -> None:
    """Known mistakes included: one that is gone has to leave the list, too."""
    changed = [(case, got) for case, got in zip(CASES, outcomes, strict=True) if got is not case.today]
    assert changed == []


def test_any_order_process_and_thread_gives_the_same(outcomes: list[Outcome]) -> None:
    """Without those that take the whole deadline: one child, another order, another thread."""
    items = [(case, got) for case, got in zip(CASES, outcomes, strict=True) if got is not Outcome.TIMEOUT]
    random.Random(0).shuffle(items)
    found: list[Outcome] = []

    def work() -> None:
        with AnswerGrader(workers=1, deadline_s=DEADLINE_S) as grader:
            found.extend(grade.outcome for grade in grader.grade([(case.gold, case.response) for case, _ in items]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [got for _, got in items]


def test_the_documentation_lists_what_is_graded_wrongly(outcomes: list[Outcome]) -> None:
    assert as_markdown(CASES, outcomes) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
