"""Runs made by hand, and the parsed pages of their colored traces."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tasks.reports.traces import write_traces
from tests.helpers import write_columns

TEXT = "Step 1: a\nStep 2: b\nStep 3: c\n"  # three steps of ten characters
Row = dict[str, Any]


class Page(HTMLParser):
    """Elements, attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for name, attributes in self.elements if name == tag]

    def hrefs(self) -> list[str]:
        return [attributes["href"] or "" for tag, attributes in self.elements if tag == "a" and "href" in attributes]


def response(group: int = 0, correct: bool = False, **changes: Any) -> Row:
    """A row of a finished table; a wrong response that nobody judged, if nothing else is asked for."""
    return {
        "problem_id": f"p{group}",
        "domain": "",
        "group": group,
        "sample": 0,
        "prompt": "What is 1 + 1?",
        "answer": "2",
        "reference": "",
        "response": TEXT,
        "truncated": False,
        "grade": "correct" if correct else "wrong",
        "extracted_answer": "2" if correct else "3",
        "outcome_reward": float(correct),
        "step_ends": [10, 20, 30],
        "first_error_step": None,
        "verdict_status": None,
        "verdict_reason": None,
        "rts": None,
        "shaped_reward": float(correct),
        "excluded": False,
        "filtered": False,
        "advantage": 0.0,
    } | changes


def judged(error: int | None, **changes: Any) -> Row:
    return response(first_error_step=error, verdict_status="ok", verdict_reason="", **changes)


def abstained(reason: str = "timeout", **changes: Any) -> Row:
    return response(verdict_status="abstained", verdict_reason=reason, excluded=True, **changes)


def made_run(run: Path, rows: Sequence[Row], iteration: int = 1) -> Path:
    path = run / f"iterations/{iteration:06d}/rollouts.parquet"
    write_columns(path, {name: [row[name] for row in rows] for name in rows[0]})
    return run


def page_of(tmp_path: Path, rows: Sequence[Row]) -> Page:
    """The only page of a run with these rows."""
    write_traces(made_run(tmp_path / "run", rows), [1], tmp_path / "out")
    return Page((tmp_path / "out/iteration-000001/page-00001.html").read_text(encoding="utf-8"))
