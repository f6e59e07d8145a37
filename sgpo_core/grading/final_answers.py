"""Where a response says its final answer, in the form that a problem set asks for.

    boxed     \\boxed{5}
    hashes    a line "#### 5", as GSM8K's worked solutions end
    phrase    "The answer is 5.", "Final answer: 5"
    any       a box; where there is none, hashes; where there are none, the phrase

Takes time linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgpo_core.config.data import AnswerForm

MAX_ANSWER_CHARACTERS = 1_024
_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)  # an escaped brace is a character, not a bracket
_HASHES = re.compile(r"^[ \t]*####[ \t]*(?P<answer>[^\n]*)", re.MULTILINE)
_PHRASE = re.compile(r"\banswer(?: is\b[ \t]*:?|[ \t]*[:=])[ \t*]*(?P<answer>[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?]\*{0,2}[ \t]{1,4}(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """`start`: the character with which it begins; `text`: what it says, stripped; None for a box that never closes."""

    start: int
    text: str | None


def final_answers(text: str, form: AnswerForm = "boxed") -> list[FinalAnswer]:
    """All of them, in the order in which they begin."""
    boxes = _boxes(text) if form in ("boxed", "any") else []
    if form == "boxed" or boxes:
        return boxes
    hashes = _said(_HASHES, text) if form in ("hashes", "any") else []
    return hashes if form == "hashes" or hashes else _said(_PHRASE, text)


def _boxes(text: str) -> list[FinalAnswer]:
    opened: list[tuple[int, int, bool]] = []
    found: list[FinalAnswer] = []
    for token in _BRACES.finditer(text):
        if token[0] == "}":
            if opened:
                start, inside, boxed = opened.pop()
                found += [FinalAnswer(start, text[inside : token.start()].strip())] if boxed else []
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append((token.start(), token.end(), token[0] != "{"))
    found += [FinalAnswer(start, None) for start, _, boxed in opened if boxed]
    return sorted(found, key=lambda answer: answer.start)


def _said(pattern: re.Pattern[str], text: str) -> list[FinalAnswer]:
    """What stands behind the words, up to the end of the sentence; of a box the content."""
    found = []
    for match in pattern.finditer(text):
        said = match["answer"]
        end = _SENTENCE_END.search(said)
        said = (said[: end.start()] if end else said).strip().rstrip(".!*").rstrip()
        boxes = [box.text for box in _boxes(said[: 2 * MAX_ANSWER_CHARACTERS]) if box.text]
        found.append(FinalAnswer(match.start(), boxes[-1] if boxes else said))
    return found
