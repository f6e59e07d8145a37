"""Cutting a response into steps. [ours] The paper leaves "a step" open; docs/steps.md shows what this makes of
solutions in many styles, beside simpler ways.

Segmenter `lines-v4`. A response may begin with a thinking section (`<think>...</think>` and what other model families
write); it and what follows it are cut apart, each by the first of these that finds two steps:

    numbered lines    "Step 3:", "3.", "(3)", "## Step 3", "**3. So", "步骤 3：", "第三步："; not in a thinking section
    paragraphs        blank lines between them; the items ("- ", "* ") of a paragraph that is a list, and what follows a
                      block of code, are steps, too
    lines             where most of them begin like a statement, not like the rest of one
    sentences

The answer is a step: the last one. A remark behind it belongs to it. Nothing is cut inside a block (fenced code,
display mathematics), and no paragraph or sentence ends before one. Steps are character spans that touch, so that the
texts of all steps joined are the response, and a span can be mapped to sampled tokens.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sgpo_core.types import Step

SEGMENTER = "lines-v4"

_NUMBERED = re.compile(
    r"""^(?P<indent>[ \t]*)(?P<heading>\#{1,6}[ \t]+)?(?P<bold>\*\*)?(?:
      (?P<step>[Ss]tep[ \t]+)(\d{1,4})(?:[ \t]*(?:[:.)](?!\d)|[-–—][ \t])|(?=\*\*|[ \t]*$))
      | (\d{1,4})[ \t]*[:.)](?=[ \t]|\*\*)
      | \((\d{1,4})\)(?=[ \t]+[^\W\d_]|[ \t]*[$\\])
      | (?P<word>步骤)[ \t]*(\d{1,4}|十?[一二三四五六七八九]|十)[ \t]*[:：.、]
      | (?P<ordinal>第)[ \t]*(\d{1,4}|十?[一二三四五六七八九]|十)[ \t]*步[ \t]*[:：.，,、]
      | (\d{1,4})、
    )""",
    re.MULTILINE | re.VERBOSE,
)
_ANSWER_LINE = re.compile(
    r"^[ \t]*(?:\#{1,6}[ \t]+)?(?:\*\*)?"
    r"(?:(?:the )?(?:final )?answer\b|therefore\b|thus\b|hence\b|\\boxed\s*\{|(?:最终)?答案|因此|所以|综上)",
    re.MULTILINE | re.IGNORECASE,
)
BOXED = re.compile(r"\\boxed\s*\{")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*(?=\S)")
_ITEM = re.compile(r"^[-*+•–][ \t]+(?=\S)", re.MULTILINE)
# A line break before what can begin a statement. One that begins with a minus is the rest of a formula, or an equation
# whose first number is negative (`_lines`).
_LINE = re.compile(r"\r?\n[ \t]*(?=[-*+•–][ \t]+[^\W\d]|\*\*|-[\d.$\\(][^\n=]*=|[^\sa-z+\-*/=<>,.;)\]])")
_SIGNED = re.compile(r"-[\d.$\\(]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|[。！？][。！？”’」』）]*\s*")
# Words that end with a full stop and go on; "No. 7"; "1." that begins an item.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|[Dd]r|[Mm]rs?|[Mm]s|[Pp]rof|[Ss]t|[Ff]igs?|[Ee]qs?|approx|resp|w\.l\.o\.g)\.\s+\S"
    r"|\b[Nn]os?\.\s+\d|(?:^|[.!?:;]\s+|\n\s*)\(?\d{1,2}\.\s+\S"
    r"|\s[a-z])$"  # "at 4 p.m. they leave"
)
# What begins and what ends a block. A \begin ends with its own \end, whatever stands between.
_MATHEMATICS = r"(?:equation|align(?:ed|at)?|gather(?:ed)?|multline|eqnarray|split|cases|array|[bpvBV]?matrix)\*?"
_FENCE = re.compile(rf"^[ \t]*(```|~~~)|(?<!\\)(\\\[|\\\])|(\$\$)|(\\(?:begin|end)\{{{_MATHEMATICS}\}})", re.MULTILINE)
_ENDS = {"```": "```", "~~~": "~~~", "\\[": "\\]", "$$": "$$"}
_CODE, _NEXT_LINE = re.compile(r"[ \t]*(?:```|~~~)"), re.compile(r"[ \t]*\r?\n\s*(?=\S)")
# DeepSeek-R1, QwQ, Qwen3; EXAONE Deep; Seed-OSS; Magistral; Kimi. Chat templates often write the opening one.
THINKING = re.compile(r"\s*(?:<(?:think|thinking|thought|seed:think)>|\[THINK\]|◁think▷)")
THOUGHT = re.compile(r"(?:</(?:think|thinking|thought|seed:think)>|\[/THINK\]|◁/think▷)\s*")


def segment(text: str) -> list[Step]:
    """The steps of a response, in order, covering every character of it. An empty or blank text has none. Time is
    linear in the text's length."""
    if not text.strip():
        return []
    final = final_part(text)
    return _spans(text, [*_prose(text[:final], False), final, *(final + cut for cut in _cuts(text[final:]))])


def final_part(text: str) -> int:
    """Where what follows the thinking section begins: 0 without one, the text's length where nothing follows it."""
    if thought := THOUGHT.search(text):
        return thought.end()
    return len(text) if THINKING.match(text) else 0


@dataclass(frozen=True, slots=True)
class NumberedLine:
    """Where it begins, its number, and its kind: `step` where it says so, `heading`, `plain` or `indented`."""

    start: int
    number: int
    kind: str


def numbered_lines(text: str) -> list[NumberedLine]:
    """The numbered lines that begin steps of what follows a thinking section. A list inside a step is of a lower kind
    than the steps' own numbers, and does not count."""
    found = {m.start(): m for m in _NUMBERED.finditer(text)}
    lines = [NumberedLine(cut, *_read(found[cut])) for cut in _outside(_blocks(text), list(found))]
    for kind in ("step", "heading", "plain", "indented"):
        same = [line for line in lines if line.kind == kind]
        if len(same) >= 2:
            return same
    return lines


def _read(match: re.Match[str]) -> tuple[int, str]:
    """Number and kind. Chinese numerals up to 19 are the sum of their characters."""
    written = match[match.lastindex or 0]
    number = int(written) if written.isdecimal() else int(sum(map(unicodedata.numeric, written)))
    if match["step"] or match["word"] or match["ordinal"]:
        return number, "step"
    if match["heading"] or match["bold"]:
        return number, "heading"
    return number, "indented" if match["indent"] else "plain"


def _cuts(text: str) -> list[int]:
    """Where steps begin, the first one left out."""
    numbered = [line.start for line in numbered_lines(text)]
    answer = _ANSWER_LINE.search(text, numbered[-1]) if numbered else None
    tail = [answer.start()] if answer and answer.start() > numbered[-1] else []
    return numbered + tail if len(numbered) + len(tail) >= 2 else _prose(text, True)


def _prose(text: str, answered: bool) -> list[int]:
    """The same, of a text in which numbers do not matter. In a thinking section what is behind a boxed answer is no
    remark on it (`answered` is false)."""
    blocks, first = _blocks(text), len(text) - len(text.lstrip())  # blank lines before the text part no paragraphs
    boxes = [m.start() for m in BOXED.finditer(text)] if answered else []
    for ways in ((_paragraphs, _items, _after_code), (_lines,), (_sentences,)):
        cuts = sorted({cut for way in ways for cut in _outside(blocks, list(way(text, first)))})
        if boxes:
            cuts = cuts[: bisect_right(cuts, boxes[-1])]
        if cuts:
            return cuts
    return []


def _paragraphs(text: str, first: int) -> Iterator[int]:
    return (m.end() for m in _breaks(text, first))


def _breaks(text: str, first: int = 0) -> Iterator[re.Match[str]]:
    """Paragraph breaks; not in the blank lines at the end, at each of which the search would look at all the rest."""
    return _PARAGRAPH.finditer(text, first, len(text.rstrip()) + 1)


def _items(text: str, first: int) -> Iterator[int]:
    """Of paragraphs that are lists. A list below a line that introduces it is a part of that step (the solutions of
    ProcessBench are written so)."""
    paragraphs = [first, *_paragraphs(text, first)]
    for item in _ITEM.finditer(text, first):
        if _ITEM.match(text, paragraphs[bisect_right(paragraphs, item.start()) - 1]):
            yield item.start()


def _after_code(text: str, first: int) -> Iterator[int]:
    for start, end in _blocks(text):
        if _CODE.match(text, start) and (behind := _NEXT_LINE.match(text, end)):
            yield behind.end()


def _lines(text: str, first: int) -> Iterator[int]:
    """Only where most lines begin so (text that is wrapped at some width has few of them), and where a line is about a
    sentence. A line such as `-5 - 2 = -7` is an equation of its own where the line before it has one, too."""
    cuts = [
        m.end()
        for m in _LINE.finditer(text, first)
        if not _SIGNED.match(text, m.end()) or "=" in text[text.rfind("\n", 0, m.start()) + 1 : m.start()]
    ]
    sentences = sum(1 for _ in _sentences(text, first))
    return iter(cuts if 2 * len(cuts) > max(text.rstrip().count("\n", first), sentences - 1) else ())


def _sentences(text: str, first: int) -> Iterator[int]:
    for match in _SENTENCE.finditer(text, first):
        start, end = match.span()
        stop = match[0].rstrip()
        gap = f"{stop} " if stop != match[0] else stop  # one blank, however many there are
        if not _ABBREVIATION.search(text[max(first, start - 12) : start] + gap + text[end : end + 1]):
            yield match.end()


def _blocks(text: str) -> list[tuple[int, int]]:
    """Spans of fenced code and display mathematics, outermost. What begins but never ends is none, nor are dollars
    around a paragraph break where their number is odd: one of them has lost its partner. Linear in time."""
    marks = [(m.start(), m.end(), m[m.lastindex or 0]) for m in _FENCE.finditer(text)]
    last = {mark: start for start, _, mark in marks}
    unbalanced = sum(mark == "$$" for _, _, mark in marks) % 2 == 1
    breaks = [m.start() for m in _breaks(text)] if unbalanced else []
    blocks: list[tuple[int, int]] = []
    begin, end = 0, ""
    for mark_start, mark_end, mark in marks:
        if end and mark == end:
            broken = mark == "$$" and bisect_left(breaks, begin) < bisect_left(breaks, mark_start)
            if broken:  # the one that began it is the odd one
                begin = mark_start
                continue
            blocks.append((begin, mark_end))
            end = ""
        elif not end or (mark == "\\[" and end == "\\]"):  # that one does not nest: the former has lost its partner
            closing = mark.replace("begin", "end", 1) if mark.startswith("\\begin") else _ENDS.get(mark, "")
            if last.get(closing, -1) > mark_start:
                begin, end = mark_start, closing
    return blocks


def _outside(blocks: Sequence[tuple[int, int]], cuts: Sequence[int]) -> list[int]:
    """The cuts (ascending) that are neither inside a block nor right before one, which belongs to what it follows."""
    starts = [start for start, _ in blocks]
    return [cut for cut in cuts if not (i := bisect_right(starts, cut)) or cut >= blocks[i - 1][1]]


def _spans(text: str, starts: Sequence[int]) -> list[Step]:
    """Touching spans from cut points. An opening remark before the first cut point is a step of its own; a blank piece
    is joined to its neighbor."""
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


def tokens_before(token_ids: Sequence[int], character: int, decode: Callable[[Sequence[int]], str]) -> int:
    """How many leading tokens lie wholly before a character offset of the decoded text.

    Found by decoding prefixes of the sampled ids (never by tokenizing the text again, which may cut it differently).
    A token that straddles the offset does not count: of a wrong step, it is already wrong. O(log n) decodings.
    """
    counts = range(len(token_ids) + 1)
    # An unfinished character decodes to one or more U+FFFD; without them the lengths ascend.
    count = bisect_right(counts, character, key=lambda n: len(decode(token_ids[:n]).rstrip("\ufffd"))) - 1
    while count > 0 and len(decode(token_ids[:count])) > character:
        count -= 1
    return max(0, count)
