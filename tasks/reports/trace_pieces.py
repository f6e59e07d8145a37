"""What a page of traces shows: responses as colored pieces of text, cut to a length that a browser can show, and the
templates that make HTML of them. Everything is escaped, invisible characters are named, and no script but ours can run.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

LIMIT = 20_000  # characters of a text that are shown
SHORT_LIMIT = 200  # of one that stands in a line: an answer, a reason, a name

Span = tuple[int, int, str, int | None]  # first character, end, kind, number of the step


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, of one color. A `cut` one stands for that many characters that are not shown."""

    kind: str  # right, wrong, after, unjudged, cut
    text: str = ""
    number: int | None = None  # of the step, from 1
    cut: int = 0


def plain(text: str | None, limit: int = LIMIT) -> list[Piece]:
    """A text without steps."""
    return list(_shown(text, [(0, len(text), "unjudged", None)], limit)) if text else []


def colored(row: Mapping[str, Any], correct: bool | None) -> list[Piece]:
    """The response of a row. Correct: all right. Wrong: right up to the first wrong step, and what comes after that was
    not looked at; a judge that finds no wrong step says that all are right. Unjudged where nobody said anything."""
    text, ends = row.get("response") or "", row.get("step_ends") or []
    error = first_error(row)
    clean = row.get("verdict_status") == "ok" and row.get("first_error_step") is None

    def kind(number: int) -> str:
        if correct or clean:
            return "right"
        if error is None:
            return "unjudged"
        return "right" if number < error else "wrong" if number == error else "after"

    spans: list[Span] = []
    start = 0
    for number, end in enumerate(ends, 1):
        end = min(max(end, start), len(text))
        if end > start:
            spans.append((start, end, kind(number), number))
        start = end
    if start < len(text):  # steps cover a text; only where they are missing there is a rest
        spans.append((start, len(text), kind(len(ends) + 1) if correct or error else "unjudged", None))
    return list(_shown(text, spans))


def first_error(row: Mapping[str, Any]) -> int | None:
    """The first wrong step (from 1) of a judged response; None also where the verdict names a step that isn't there."""
    error = row.get("first_error_step")
    judged = row.get("verdict_status") == "ok"
    return error if judged and error is not None and 1 <= error <= len(row.get("step_ends") or []) else None


def _shown(text: str, spans: Sequence[Span], limit: int = LIMIT) -> Iterator[Piece]:
    """The spans, but for those parts of a long text that are cut: head, tail and what is wrong are kept."""
    wrong = next((start for start, _, kind, _ in spans if kind == "wrong"), None)
    behind = 0
    for first, last in _kept(len(text), limit, wrong):
        if first > behind:
            yield Piece("cut", cut=first - behind)
        for start, end, kind, number in spans:
            if start < last and end > first:
                yield Piece(kind, text[max(start, first) : min(end, last)], number)
        behind = last


def _kept(length: int, limit: int, center: int | None) -> list[tuple[int, int]]:
    """Which characters of a text are shown, at most `limit` of them."""
    if length <= limit:
        return [(0, length)]
    head, tail, around = limit * 6 // 10, length - limit * 3 // 10, limit // 10
    if center is None:
        return [(0, head + around), (tail, length)]
    start = min(max(center - around // 4, head), tail - around)
    window = (start, start + around)
    if window[0] == head:  # touches the head: no cut in between
        return [(0, window[1]), (tail, length)]
    if window[1] == tail:
        return [(0, head), (window[0], length)]
    return [(0, head), window, (tail, length)]


_TEMPLATES = Path(__file__).with_name("templates") / "traces"

# Characters that a reader can't see, or that change what others look like: controls (but for newline and tab), soft
# hyphens, zero-width and bidirectional marks, unusual line ends, lone surrogates and invisible tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]+"
)


def template(name: str) -> Template:
    """A template of the traces, with everything that it takes but its data."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8").strip() for name in ("style.css", "script.js"))
    environment.filters.update(visible=visible, number=number)
    environment.globals.update(
        style=Markup(style),
        script=Markup(script),
        # Even a hole in the escaping runs nothing: what isn't exactly our script and style is refused by the browser.
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'",
    )
    return environment


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def number(value: float) -> str:
    """Three digits, and a minus sign that is as wide as a digit."""
    return f"{value:.3g}".replace("-", "−")


def visible(text: str) -> Markup:
    """The text as HTML: nothing in it is markup, and invisible characters are named."""
    parts, position = [], 0
    for match in _INVISIBLE.finditer(text):
        names = " ".join(f"U+{ord(character):04X}" for character in match.group())
        parts += [escape(text[position : match.start()]), Markup("<b class=control>{}</b>").format(names)]
        position = match.end()
    return Markup().join([*parts, escape(text[position:])])
