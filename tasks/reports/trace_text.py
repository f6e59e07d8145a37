"""A response as coloured pieces of text: what the judge says of each step, cut to a length that a browser can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 20_000  # characters of a text that are shown
SHORT_LIMIT = 200  # of one that stands in a line: an answer, a reason, a name

Span = tuple[int, int, str, int | None]  # first character, end, kind, number of the step


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, of one colour. A `cut` one stands for that many characters that are not shown."""

    kind: str  # right, wrong, after, unjudged, cut
    text: str = ""
    number: int | None = None  # of the step, from 1
    cut: int = 0


def plain(text: str | None, limit: int = LIMIT) -> list[Piece]:
    """A text without steps."""
    return list(_shown(text, [(0, len(text), "unjudged", None)], limit)) if text else []


def coloured(row: Mapping[str, Any], correct: bool | None) -> list[Piece]:
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


def _kept(length: int, limit: int, centre: int | None) -> list[tuple[int, int]]:
    """Which characters of a text are shown, at most `limit` of them."""
    if length <= limit:
        return [(0, length)]
    head, tail, around = limit * 6 // 10, length - limit * 3 // 10, limit // 10
    if centre is None:
        return [(0, head + around), (tail, length)]
    start = min(max(centre - around // 4, head), tail - around)
    window = (start, start + around)
    if window[0] == head:  # touches the head: no cut in between
        return [(0, window[1]), (tail, length)]
    if window[1] == tail:
        return [(0, head), (window[0], length)]
    return [(0, head), window, (tail, length)]
