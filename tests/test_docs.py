"""The pages: every link to a file or a heading of the project leads there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers import REPOSITORY

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    return sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


def anchors(page: Path) -> set[str]:
    """As the usual hosts make them of headings: lower case, words joined by dashes, nothing else."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text)}


def broken(page: Path) -> list[str]:
    found = []
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    for link in (a or b for a, b in _LINK.findall(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def test_links_lead_somewhere() -> None:
    assert len(pages()) > 20
    assert {page.name: links for page in pages() if (links := broken(page))} == {}


def test_the_search_itself(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c!\n[a](page.md#a-b-c) [b](#a-b-c) [c](https://example.org/x#y) `[d](none.md)`\n"
        '[e](none.md) [f](#none) [g](page.md#none) <img src="none.png">\n'
    )
    assert broken(page) == ["none.md", "#none", "page.md#none", "none.png"]


def test_the_site_has_every_page() -> None:
    listed = (REPOSITORY / "docs/site.yml").read_text(encoding="utf-8")
    assert [page.name for page in pages() if f"- {page.relative_to(REPOSITORY)}\n" not in listed] == []
