"""Text of others, made unable to pass for the structure of a judge's prompt.

A judge reads what the policy wrote. Some strings in it would be more than text there: special tokens of chat templates
(an engine turns "<|im_end|>" in a message into that token), tags, the structure words of `judges.prompts`. They are
rewritten visibly, one character for one, the same way wherever text of others goes into a prompt:

    <|im_end|>  </s>  <think>  <start_of_turn>  [INST]  [SYSTEM_PROMPT]    brackets become ‹ and ›
    First wrong step:  First error:  Verdict:  Response:  Reference:       the colon becomes ›
    "user:", "assistant:", "system:", "human:" that begin a line           the colon becomes ›
    a run of characters that can't be seen                                 one U+FFFD

Look-alikes (full-width, Cyrillic, Greek) are rewritten as what they look like is. Mathematics stays as it is: a < b,
a<b and c>d, |x|<|y|, <u, v>, [ABC], LaTeX.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_LOOK_ALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХасеіјорѕухԁһԛԝΑΒΕΖΗΙΚΜΝΟΡΤΧοιν",
    "ABESIJKMHOPCTXaceijopsyxdhqwABEZHIKMNOPTXoiv",
)
# Controls (but tab and newline), lone surrogates, line separators, zero-width and other format characters, fillers,
# variation selectors, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]+"
)
_BRACKETED = re.compile(
    r"""<\|[^\s|<>\[\]]{1,64}\|>                 # <|im_end|>
      | </[\w.:-]{0,64}[ ]?>?                    # a closing tag, finished or not: no formula has "</"
      | <[a-z][\w.:-]{0,63}/?>                   # <s>, <think>
      | \[/?(?:inst|think|args|img|audio|prefix|middle|suffix|mask|gmask|cls|sep|pad|unk|[be]os|[a-z]{3,}_[a-z_]{3,})\]
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Inside of a word, too: a word-level tokenizer finds its pieces anywhere.
_WORDS = re.compile(
    r"(?:first\s{1,9}(?:(?:wrong|incorrect)\s{1,9}step|error)|verdict|response|reference"
    r"|^[^\w\n]{0,9}(?:user|assistant|system|human))[ \t*_]{0,9}:",
    re.MULTILINE | re.IGNORECASE,
)
_OPENING, _CLOSING = "‹", "›"


def sanitize(text: str) -> str:
    """See above. Idempotent; keeps the number of lines. Time is linear in the text's length."""
    text = _UNSEEN.sub("\ufffd", text.replace("\r\n", "\n"))
    looks = text if text.isascii() else "".join(map(_looks_like, text))
    characters = list(text)
    for match in _BRACKETED.finditer(looks):
        characters[match.start()] = _OPENING
        if looks[match.end() - 1] in ">]":
            characters[match.end() - 1] = _CLOSING
    for match in _WORDS.finditer(looks):
        characters[match.end() - 1] = _CLOSING
    return "".join(characters)


@cache
def _looks_like(character: str) -> str:
    """One character for one; an accent, a fraction, an index stays."""
    plain = unicodedata.normalize("NFKC", character)
    return (plain if len(plain) == 1 else character).translate(_LOOK_ALIKES)
