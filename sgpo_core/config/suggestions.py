"""What was meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_ALIKE = 0.7  # share of letters in common from which on a word is suggested
_AT_MOST = 3  # that are equally alike


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or "" where nothing known is like it. Keys with dots are compared as a whole, by their end
    (credit.beta, or beta alone), and by their last part where the rest is another (train.beta)."""
    scores = {name: _likeness(word, name) for name in known if name != word}
    best = max(scores.values(), default=0.0)
    if best < _ALIKE:
        return ""
    return f"did you mean {' or '.join([name for name, score in scores.items() if score == best][:_AT_MOST])}?"


def _likeness(word: str, name: str) -> float:
    parts, others = word.split("."), name.split(".")
    by_end = _ratio(word, ".".join(others[-len(parts) :]))
    return by_end if len(parts) == 1 else max(by_end, _ratio(word, name), 0.9 * _ratio(parts[-1], others[-1]))


def _ratio(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower()).ratio()
