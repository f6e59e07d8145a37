"""Pages of traces: whatever the texts are, nothing in them is markup, and no character of them is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reports.trace_pieces import LIMIT, SHORT_LIMIT, colored, plain, visible
from tests.fuzz.hostile import MARKUP, texts, unicode_texts
from tests.trace_pages import Page, page_of, response

# All that our templates have. No element that loads something, and no attribute that runs something.
ELEMENTS = (
    *("html", "head", "meta", "title", "style", "body", "script", "header", "main", "section", "article", "div", "p"),
    *("h1", "h2", "small", "nav", "a", "b", "i", "em", "code", "span", "dl", "dt", "dd", "details", "summary"),
)
ATTRIBUTES = ("lang", "charset", "http-equiv", "content", "name", "class", "href", "hidden", "id")
TEXTS = ("problem_id", "domain", "prompt", "answer", "reference", "response", "grade", "extracted_answer")
_markup = st.lists(st.sampled_from(MARKUP), max_size=6).map("".join)
_texts = unicode_texts | _markup


@given(texts | _markup)
def test_a_text_as_html(text: str) -> None:
    page = Page(str(visible(text)))
    assert {(tag, *attributes.items()) for tag, attributes in page.elements} <= {("b", ("class", "control"))}
    assert "<" not in str(visible(text)).replace("<b class=control>", "").replace("</b>", "")


_ends = st.lists(st.integers(-5, 300), max_size=6) | st.none()
_statuses = st.sampled_from([None, "ok", "abstained"])


@given(texts, _ends, _statuses, st.none() | st.integers(-2, 9), st.sampled_from([None, True, False]))
def test_pieces(text: str, ends: list[int] | None, status: str | None, error: int | None, correct: bool | None) -> None:
    row: dict[str, Any] = {"response": text, "step_ends": ends, "verdict_status": status, "first_error_step": error}
    for pieces, limit in ((colored(row, correct), LIMIT), (plain(text, SHORT_LIMIT), SHORT_LIMIT)):
        assert sum(piece.cut or len(piece.text) for piece in pieces) == len(text)
        shown = "".join(piece.text for piece in pieces)
        assert shown == text if len(text) <= limit else len(shown) <= limit
        assert {piece.kind for piece in pieces} <= {"right", "wrong", "after", "unjudged", "cut"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@given(st.dictionaries(st.sampled_from([*TEXTS, "verdict_reason"]), _texts, min_size=1), _ends, _statuses)
def test_a_whole_page(folder: Path, changes: dict[str, str], ends: list[int] | None, status: str | None) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    row = response(**{"verdict_status": status, "verdict_reason": "", "step_ends": ends, **changes})
    page = page_of(folder, [row])
    assert {tag for tag, _ in page.elements} <= set(ELEMENTS)
    names = {name for _, attributes in page.elements for name in attributes}
    assert {name for name in names if not name.startswith(("data-", "aria-"))} <= set(ATTRIBUTES)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [href for href in page.hrefs() if not href.startswith(("#", "../"))]
