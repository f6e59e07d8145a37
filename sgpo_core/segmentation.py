"""Cutting a response into steps. [ours] The paper leaves "a step" open.

Segmenter `lines-v1`, in this order: numbered lines ("Step 3:", "3.", "3)") where the response has at least two of
them, or one and an answer line, else paragraphs (blank lines between), else sentences. The answer is a step: the last
one. Steps are character spans that touch, so that the texts of all steps joined are the response, and a span can be
mapped to sampled tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

from sgpo_core.types import Step

SEGMENTER = "lines-v1"

_NUMBERED = re.compile(r"^[ \t]*(?:[Ss]tep[ \t]+)?(\d{1,4})[ \t]*[:.)](?=[ \t])", re.MULTILINE)
_ANSWER_LINE = re.compile(
    r"^[ \t]*(?:(?:the )?(?:final )?answer\b|therefore\b|thus\b|hence\b|\\boxed\s*\{)", re.MULTILINE | re.IGNORECASE
)
_BOXED = re.compile(r"\\boxed\s*\{")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*(?=\S)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")


def segment(text: str) -> list[Step]:
    """The steps of a response, in order, covering every character of it. An empty or blank text has none. Time is
    linear in the text's length."""
    if not text.strip():
        return []
    numbered = [m.start() for m in _NUMBERED.finditer(text)]
    answer = _ANSWER_LINE.search(text, numbered[-1]) if numbered else None
    tail = [answer.start()] if answer and answer.start() > numbered[-1] else []
    if len(numbered) + len(tail) >= 2:
        return _spans(text, numbered + tail)
    first = len(text) - len(text.lstrip())  # blank lines before the text part no paragraphs
    paragraphs = [m.end() for m in _PARAGRAPH.finditer(text, first)]
    return _spans(text, paragraphs or [m.end() for m in _SENTENCE.finditer(text)])


def _spans(text: str, starts: Sequence[int]) -> list[Step]:
    """Touching spans from cut points. An opening remark before the first cut point is a step of its own; a blank piece
    is joined to its neighbour."""
    cuts = sorted({0, *starts} - {len(text)})
    spans: list[tuple[int, int]] = []
    for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
        if spans and not text[start:end].strip():
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    if len(spans) > 1 and not text[spans[0][0] : spans[0][1]].strip():
        spans[:2] = [(spans[0][0], spans[1][1])]
    return [Step(start, end, text[start:end]) for start, end in spans]


def well_formed(text: str, truncated: bool = False) -> bool:
    """The format gate: numbered steps count 1, 2, 3, ... and there is exactly one boxed answer, in the last step.

    Without the gate, RTS over a response's own steps taught a policy ever shorter, malformed solutions (measured: share
    of well-formed responses .86 to .03 in 40 iterations). A truncated response has no answer yet: only its numbering
    is looked at.
    """
    steps = segment(text)
    if not steps:
        return False
    numbers = [int(m[1]) for m in _NUMBERED.finditer(text)]
    if len(numbers) >= 2 and numbers != list(range(1, len(numbers) + 1)):
        return False
    boxed = [m.start() for m in _BOXED.finditer(text)]
    return truncated or (len(boxed) == 1 and boxed[0] >= steps[-1].start)


def tokens_before(token_ids: Sequence[int], character: int, decode: Callable[[Sequence[int]], str]) -> int:
    """How many leading tokens lie wholly before a character offset of the decoded text.

    Found by decoding prefixes of the sampled ids (never by tokenising the text again, which may cut it differently).
    A token that straddles the offset does not count: of a wrong step, it is already wrong. O(log n) decodings.
    """
    counts = range(len(token_ids) + 1)
    # An unfinished character decodes to one or more U+FFFD; without them the lengths ascend.
    count = bisect_right(counts, character, key=lambda n: len(decode(token_ids[:n]).rstrip("\ufffd"))) - 1
    while count > 0 and len(decode(token_ids[:count])) > character:
        count -= 1
    return max(0, count)
