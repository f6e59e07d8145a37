"""Cutting a response into steps. [ours] The paper leaves "a step" open; docs/steps.md shows what this makes of
solutions in several styles, beside simpler ways (`python -m sgpo_core.data.segmentation` prints that table).

Segmenter `lines-v2`, in this order: numbered lines ("Step 3:", "3.", "3)", "### Step 3:", "**Step 3:**", "步骤 3：",
"第三步：", "3、") where the response has at least two of them, or one and an answer line, else paragraphs (blank lines
between), else sentences. The answer is a step: the last one. Nothing is cut inside a block (fenced code, display
mathematics), and no paragraph or sentence ends before one. Steps are character spans that touch, so that the texts of
all steps joined are the response, and a span can be mapped to sampled tokens.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence

from sgpo_core.data.example_solutions import EXAMPLES
from sgpo_core.types import Step

SEGMENTER = "lines-v2"

_NUMBERED = re.compile(
    r"""^[ \t]*(?:\#{1,6}[ \t]+)?(?:\*\*)?(?:
      (?:[Ss]tep[ \t]+)?(\d{1,4})[ \t]*[:.)](?=[ \t]|\*\*)
      | 步骤[ \t]*(\d{1,4}|十?[一二三四五六七八九]|十)[ \t]*[:：.、]
      | 第[ \t]*(\d{1,4}|十?[一二三四五六七八九]|十)[ \t]*步[ \t]*[:：.，,、]
      | (\d{1,4})、
    )""",
    re.MULTILINE | re.VERBOSE,
)
_ANSWER_LINE = re.compile(
    r"^[ \t]*(?:\#{1,6}[ \t]+)?(?:\*\*)?"
    r"(?:(?:the )?(?:final )?answer\b|therefore\b|thus\b|hence\b|\\boxed\s*\{|(?:最终)?答案|因此|所以|综上)",
    re.MULTILINE | re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*(?=\S)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|[。！？][。！？”’」』）]*\s*")
# What begins and what ends a block. A \begin ends with its own \end, whatever stands between.
_MATHEMATICS = r"(?:equation|align(?:ed|at)?|gather(?:ed)?|multline|eqnarray|split|cases|array|[bpvBV]?matrix)\*?"
_FENCE = re.compile(rf"^[ \t]*(```|~~~)|(?<!\\)(\\\[|\\\])|(\$\$)|(\\(?:begin|end)\{{{_MATHEMATICS}\}})", re.MULTILINE)
_ENDS = {"```": "```", "~~~": "~~~", "\\[": "\\]", "$$": "$$"}


def segment(text: str) -> list[Step]:
    """The steps of a response, in order, covering every character of it. An empty or blank text has none. Time is
    linear in the text's length."""
    if not text.strip():
        return []
    blocks = _blocks(text)
    numbered = list(_numbered(text, blocks))
    answer = _ANSWER_LINE.search(text, numbered[-1]) if numbered else None
    tail = [answer.start()] if answer and answer.start() > numbered[-1] else []
    if len(numbered) + len(tail) >= 2:
        return _spans(text, numbered + tail)
    first = len(text) - len(text.lstrip())  # blank lines before the text part no paragraphs
    paragraphs = _outside(blocks, [m.end() for m in _PARAGRAPH.finditer(text, first)])
    return _spans(text, paragraphs or _outside(blocks, [m.end() for m in _SENTENCE.finditer(text)]))


def _numbered(text: str, blocks: Sequence[tuple[int, int]]) -> dict[int, str]:
    """Where each numbered line begins, and its number as it is written."""
    lines = {m.start(): m[m.lastindex or 0] for m in _NUMBERED.finditer(text)}
    return {start: lines[start] for start in _outside(blocks, list(lines))}


def _number(written: str) -> int:
    """Chinese numerals up to 19 are the sum of their characters."""
    return int(written) if written.isdecimal() else int(sum(map(unicodedata.numeric, written)))


def _blocks(text: str) -> list[tuple[int, int]]:
    """Spans of fenced code and display mathematics, outermost. What begins but never ends is none. Linear in time."""
    marks = [(m.start(), m.end(), m[m.lastindex or 0]) for m in _FENCE.finditer(text)]
    last = {mark: start for start, _, mark in marks}
    blocks: list[tuple[int, int]] = []
    begin, end = 0, ""
    for mark_start, mark_end, mark in marks:
        if end:
            if mark == end:
                blocks.append((begin, mark_end))
                end = ""
            continue
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


def well_formed(text: str, truncated: bool = False) -> bool:
    """The format gate: numbered steps count 1, 2, 3, ... and there is exactly one boxed answer, in the last step.

    Without the gate, RTS over a response's own steps taught a policy ever shorter, malformed solutions (measured: share
    of well-formed responses .86 to .03 in 40 iterations). A truncated response has no answer yet: only its numbering
    is looked at.
    """
    steps = segment(text)
    if not steps:
        return False
    numbers = [_number(written) for written in _numbered(text, _blocks(text)).values()]
    if len(numbers) >= 2 and numbers != list(range(1, len(numbers) + 1)):
        return False
    boxed = [m.start() for m in _BOXED.finditer(text)]
    return truncated or (len(boxed) == 1 and boxed[0] >= steps[-1].start)


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


def as_markdown() -> str:
    """How many steps each way of cutting makes of each example, and where this one begins them, as Markdown."""
    ways: dict[str, Callable[[str], list[Step]]] = {
        SEGMENTER: segment,
        "lines": lambda text: _spans(text, [m.end() for m in re.finditer("\n", text)]),
        "paragraphs": lambda text: _spans(text, [m.end() for m in _PARAGRAPH.finditer(text)]),
        "sentences": lambda text: _spans(text, [m.end() for m in re.finditer(r"(?<=[.!?])\s+", text)]),
    }
    header = f"| solution | {' | '.join(ways)} | its steps begin with |"
    lines = [header, "|" + "---|" * (len(ways) + 2)]
    for name, text in EXAMPLES.items():
        counts = [str(len(way(text))) for way in ways.values()]
        begins = " ".join(f"`{_beginning(step.text)}`" for step in segment(text))
        lines.append(f"| {' | '.join([name, *counts, begins])} |")
    return "\n".join(lines)


def _beginning(text: str, length: int = 12) -> str:
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())[:length].strip()


if __name__ == "__main__":
    print(as_markdown())
