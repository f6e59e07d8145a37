"""Text of others, made unable to pass for the structure of a judge's prompt.

A judge reads what the policy wrote. Some strings in it would be more than text there: special tokens of chat templates
(an engine turns "<|im_end|>" in a message into that token), tags, the structure words of `judges.prompts`. They are
rewritten visibly, one character for one, the same way wherever text of others goes into a prompt:

    <|im_end|>  </s>  <think>  <start_of_turn>  [INST]  [SYSTEM_PROMPT]    brackets become ‹ and ›
    [|system|]  [UNUSED_TOKEN_146]  [control_12]  >>QUESTION<<  ]~b]       the same
    First wrong step:  First error:  Verdict:  Response:  Reference:       the colon becomes ›
    "user:", "assistant:", "system:", "human:" that begin a line           the colon becomes ›
    a run of characters that can't be seen                                 one U+FFFD

These rules hold for every judge. Where the judge's tokenizer is known, its own control tokens are rewritten before them
(`judges.control_tokens`), whatever they look like.

Look-alikes (full-width, Cyrillic, Greek) are rewritten as what they look like is. Mathematics stays as it is: a < b,
a<b and c>d, |x|<|y|, <u, v>, [ABC], [0;1], [|x|], LaTeX.
"""

from __future__ import annotations

import re

from sgpo_core.judges.control_tokens import CLOSING, NO_CONTROLS, OPENING, ControlTokens, folded

SANITIZER = 2  # verdicts are cached under it: raise it with every change of what is rewritten
# Controls (but tab and newline), lone surrogates, line separators, zero-width and other format characters, fillers,
# variation selectors, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]+"
)
_BRACKETED = re.compile(
    r"""<\|[^\s|<>\[\]‹›]{1,64}\|>               # <|im_end|>
      | </[\w.:-]{0,64}[ ]?>?                    # a closing tag, finished or not: no formula has "</"
      | <[a-z][\w.:-]{0,63}/?>                   # <s>, <think>
      | \[/?(?:inst|think|args|img|audio|prefix|middle|suffix|[gs]?mask|cls|sep|pad|unk|[be]os|[a-z]{3,}_[a-z_]{3,})\]
      | \[(?:control|unused|reserved|special|extra|dummy|token)[a-z_]{0,32}[0-9]{1,6}\]    # Mistral, InternLM2, BERT
      | (?-i:\[\|[a-z_]{4,32}\|\])               # EXAONE: [|system|]; [|x|] and [|AB|] are mathematics
      | (?-i:>>[A-Z]{4,16}<<)                    # Falcon: >>QUESTION<<
      | ◁/?[a-z]{4,16}▷                          # Kimi: ◁think▷
      | \]~!?b[\[\]] | \[e~\[                    # MiniMax: ]~!b[ ]~b] [e~[
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Inside of a word, too: a word-level tokenizer finds its pieces anywhere.
_WORDS = re.compile(
    r"(?:first\s{1,9}(?:(?:wrong|incorrect)\s{1,9}step|error)|verdict|response|reference"
    r"|^[^\w\n]{0,9}(?:user|assistant|system|human))[ \t*_]{0,9}:",
    re.MULTILINE | re.IGNORECASE,
)


def sanitize(text: str, controls: ControlTokens = NO_CONTROLS) -> str:
    """See above; `controls` are those of the judge's tokenizer. Idempotent; keeps the number of lines. Time is linear
    in the text's length."""
    text = controls.rewritten(_UNSEEN.sub("\ufffd", text.replace("\r\n", "\n")))
    looks = folded(text)
    characters = list(text)
    for match in _BRACKETED.finditer(looks):
        characters[match.start()] = OPENING
        if looks[match.end() - 1] in ">]<[▷":
            characters[match.end() - 1] = CLOSING
    for match in _WORDS.finditer(looks):
        characters[match.end() - 1] = CLOSING
    return "".join(characters)
