"""What goes to a language model that is asked as a judge, and what comes back, wherever it runs."""

from __future__ import annotations

import re
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
    output). `thinks`: whether the model is to think before it writes, None where it is no reasoning model; `max_tokens`
    holds room for that."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    choices: tuple[str, ...] = ()
    thinks: bool | None = None


@dataclass(frozen=True, slots=True)
class ChatReply:
    """`text` is what the model wrote after its thinking. `error` says why there is no reply, in a few words that may be
    shown (no key, no header); it is "" otherwise. `cut_off`: by the limit of tokens. `thought`: the reply, or the
    server, shows that the model has thought."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    cut_off: bool = False
    thought: bool = False


class Chat(Protocol):
    """Replies in the order of the requests. Raises nothing for a single request that fails: its reply has an error."""

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatReply]: ...


_CLOSES = "</think>"
_THINKING = re.compile(rf"(?:\s*<think>.*?(?:{_CLOSES}|\Z))+", re.DOTALL)


def after_thinking(text: str, thinks: bool) -> tuple[str, bool]:
    """(what follows the thinking, whether there was any), where a server leaves it in the text: `<think>...</think>`,
    as DeepSeek-R1, QwQ and Qwen3 write it. Thinking that does not end is followed by nothing. It ends at the first
    `</think>`, as in the parsers of vLLM and SGLang. Of a judge that thinks it may lack its beginning, which is part
    of the prompt in DeepSeek-R1's template; elsewhere a `</think>` alone is text."""
    if found := _THINKING.match(text):
        return text[found.end() :].lstrip(), True
    if thinks and _CLOSES in text:
        return text.partition(_CLOSES)[2].lstrip(), True
    return text, False
