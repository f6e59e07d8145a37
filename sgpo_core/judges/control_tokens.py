"""The control tokens of a judge's own tokenizer, rewritten in text of others.

An engine turns the text of such a token into the token itself wherever it stands in a message. What these texts are
differs from model to model: <|im_end|>, [|endofturn|] (EXAONE), [UNUSED_TOKEN_145] (InternLM2), [control_17] (Mistral).
Where the tokenizer is known, it says so itself. Of all that it adds to its vocabulary, these are control tokens:

    special         whatever it is, since the model's maker says that it is no text; but for the three kinds below
    merely added    a word in brackets: <tool_call>, [unused_7], |||EMAIL|||

These are none, since they are text that the tokenizer knows as a whole, and the judge reads the same either way. To
rewrite them would change every formula and every paragraph:

    runs of blanks       "  ", "\\n\\n" (GPT-NeoX, Phi, Gemma)
    single characters    "7", "x", "÷" (DeepSeek)
    numbers              "10"
    added words          "eigenvalue", "\\frac", if they are not special
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

OPENING, CLOSING = "‹", "›"  # in place of brackets; no control token has them
_BRACKETS = {"<": ">", "[": "]", "|": "|", "◁": "▷"}
_LOOK_ALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХасеіјорѕухԁһԛԝΑΒΕΖΗΙΚΜΝΟΡΤΧοιν",
    "ABESIJKMHOPCTXaceijopsyxdhqwABEZHIKMNOPTXoiv",
)
Trie = dict[str, "Trie"]
_END = ""  # of a token, as a key


def folded(text: str) -> str:
    """The text with look-alikes (full-width, Cyrillic, Greek) as what they look like, one character for one."""
    return text if text.isascii() else "".join(map(_looks_like, text))


@cache
def _looks_like(character: str) -> str:
    """One character for one; an accent, a fraction, an index stays."""
    plain = unicodedata.normalize("NFKC", character)
    return (plain if len(plain) == 1 else character).translate(_LOOK_ALIKES)


class ControlTokens:
    """Control tokens, each without blanks round it and folded, in the order of the alphabet."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self.tokens = tuple(sorted({folded(token) for token in tokens}))
        self._trie: Trie = {}
        for token in self.tokens:
            node = self._trie
            for character in token:
                node = node.setdefault(character, {})
            node[_END] = {}
        self._starts = re.compile("|".join(map(re.escape, self._trie)))

    def rewritten(self, text: str) -> str:
        """The text without them: their brackets, or whatever stands for such, become ‹ and ›; one that begins with a
        letter is split behind it (PI:URL, P›I:URL). Also where they overlap. Idempotent: ‹ and › are in no token. Keeps
        the number of lines. Time is linear in the text's length: at most that times the longest token's."""
        if not self.tokens:
            return text
        looks, characters = folded(text), list(text)
        for match in self._starts.finditer(looks):
            start = match.start()
            if not (end := self._end(looks, start)):
                continue
            if looks[start].isalnum():
                characters[start] = text[start] + CLOSING
                continue
            characters[start] = OPENING
            if not looks[end - 1].isalnum():
                characters[end - 1] = CLOSING
        return "".join(characters)

    def _end(self, looks: str, start: int) -> int:
        """Where the longest token ends that begins at `start`; 0 for none."""
        node, found = self._trie, 0
        for place in range(start, len(looks)):
            if looks[place] not in node:
                break
            node = node[looks[place]]
            if _END in node:
                found = place + 1
        return found


NO_CONTROLS = ControlTokens()  # of a judge whose tokenizer is not known


def controls_of(tokenizer: Any) -> tuple[str, ...]:
    """Its control tokens, see above. `tokenizer` is one of Hugging Face, or vLLM's for Mistral's own format."""
    added = [*getattr(tokenizer, "added_tokens_decoder", {}).values()]
    special = {*map(str, tokenizer.all_special_tokens), *(token.content for token in added if token.special)}
    every = {*special, *tokenizer.get_added_vocab(), *(token.content for token in added)}
    bare = {token: token.strip().strip("▁").strip() for token in every}  # ▁: SentencePiece's blank
    return tuple(sorted({text for token, text in bare.items() if _is_control(text, token in special)}))


def _is_control(text: str, special: bool) -> bool:
    if len(text) < 2 or text.isdigit() or OPENING in text or CLOSING in text:
        return False
    plain = folded(text)
    in_brackets = _BRACKETS.get(plain[0]) == plain[-1] and sum(map(str.isalpha, plain)) > 1
    return special or in_brackets
