"""Texts of a model are hostile: none of them becomes markup, and no script but ours runs. In a browser, too."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.reports.trace_pieces import LIMIT, visible
from tasks.reports.traces import write_traces
from tests.trace_pages import Page, abstained, made_run, page_of, response

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = [
    "<script>window.hit = 1</script>",
    '"onmouseover="alert(1)" x="',
    "'><img src=x onerror=alert(1)>",
    "</pre></div></section></main></body></html><iframe src=//evil.example>",
    "{{7*7}} {% raw %} ${7*7}",
    "]]><!-- <style>*{display:none}</style> <meta http-equiv=refresh content=0>",
    "&lt;b&gt; &#60;b&#62; javascript:alert(1)",
    "</script><script>alert(1)</script></title></style>",
    "\x00\x1b[31m\u202egnp.exe\u2066\u200b\ufeff",
    "x" * 1_000_000,
]
TEXTS = ("problem_id", "domain", "prompt", "answer", "reference", "response", "grade", "extracted_answer")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_make_no_markup(tmp_path: Path, text: str) -> None:
    """The page has the elements and attributes that it has with a harmless text, and nothing else but our own spans."""
    pages = []
    for name, value in (("harmless", "text"), ("hostile", text)):
        row = abstained(value, step_ends=[2, len(value)]) | dict.fromkeys(TEXTS, value)
        pages.append(page_of(tmp_path / name, [row]))
    harmless, hostile = (
        [e for e in p.elements if e not in (("b", {"class": "control"}), ("span", {"class": "cut"}))] for p in pages
    )
    if len(text) <= LIMIT:
        assert hostile == harmless
    else:  # wider columns, a piece that says how much is cut, and what is left of the second step behind it
        expected = [
            ("div", {"class": "responses wide"}) if e == ("div", {"class": "responses"}) else e for e in harmless
        ]
        expected[-2:-2] = [("div", {"class": "cut"}), ("div", {"class": "unjudged", "data-step": "2"})]
        assert hostile == expected


@pytest.mark.parametrize("text", HOSTILE[:-2], ids=range(len(HOSTILE) - 2))
def test_texts_are_shown_as_they_are(tmp_path: Path, text: str) -> None:
    assert page_of(tmp_path, [response(response=text, step_ends=[len(text)])]).text.count(text) == 1


def test_only_our_own_script_can_run(tmp_path: Path) -> None:
    write_traces(made_run(tmp_path / "run", [response()]), [1], tmp_path / "out")
    for file in ("index.html", "iteration-000001/page-00001.html"):
        html = (tmp_path / "out" / file).read_text(encoding="utf-8")
        page = Page(html)
        policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy and "*" not in policy
        assert [tag for tag, _ in page.elements].count("script") == 1
        names = {name for _, attributes in page.elements for name in attributes}
        assert not {n for n in names if n.startswith("on")} | (names & {"src", "style", "srcdoc"})
        assert not [href for href in page.hrefs() if re.match(r"[a-z]+:|//", href)]


def test_the_name_of_a_run_is_a_text_too(tmp_path: Path) -> None:
    run = made_run(tmp_path / "<img src=x onerror=alert(1)>", [response()])
    for file in (write_traces(run, [1], tmp_path / "out"), tmp_path / "out/iteration-000001/page-00001.html"):
        page = Page(file.read_text(encoding="utf-8"))
        assert "img" not in [tag for tag, _ in page.elements] and run.name in page.text


def test_invisible_characters_are_named() -> None:
    assert visible("a\x00\u202eb\r\n\tc\x7f") == (
        "a<b class=control>U+0000 U+202E</b>b<b class=control>U+000D</b>\n\tc<b class=control>U+007F</b>"
    )
    assert visible("naïve 漢字 שלום 🙂 ∑") == "naïve 漢字 שלום 🙂 ∑"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_filters_in_a_browser(tmp_path: Path) -> None:
    """The policy lets our script run: it hides groups and keeps the filter in links. One in a text does nothing."""
    hit = "<script>document.title = 'hit'</script><img src=x onerror=\"document.title = 'hit'\">"
    kinds = [response(0, response=hit), response(1), response(1, True), response(1, sample=2), abstained(group=2)]
    write_traces(made_run(tmp_path / "run", [*kinds, response(3), response(4, True)]), [1], tmp_path / "out", 3)
    url = (tmp_path / "out/iteration-000001/page-00001.html").as_uri()
    for kind, hidden, target in (
        ("all", [False, False, False], "2.html"),
        ("mixed", [True, False, True], None),
        ("abstained", [True, True, False], None),
        ("all-negative", [False, True, False], "2.html#all-negative"),
    ):
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
        command = [str(CHROMIUM), *options, "--dump-dom", f"{url}#{kind}"]
        page = Page(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
        assert ["hidden" in attributes for tag, attributes in page.elements if tag == "section"] == hidden
        links = [attributes.get("href") for tag, attributes in page.elements if "data-all" in attributes]
        assert [href and href.removeprefix("../iteration-000001/page-0000") for href in links] == [target]
        assert [a["data-filter"] for _, a in page.elements if a.get("aria-current") == "true"] == [kind]
        assert page.texts[page.texts.index("run: iteration 1, page 1")] and "hit" not in page.texts
