"""What goes to a language model that is asked as a judge, and what comes back, wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One reply to be generated. With `choices` the reply is one of them, enforced while it is generated (structured
    output)."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatReply:
    """`error` says why there is no text, in a few words that may be shown (no key, no header); it is "" otherwise."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""


class Chat(Protocol):
    """Replies in the order of the requests. Raises nothing for a single request that fails: its reply has an error."""

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatReply]: ...
