"""The wire format of OpenAI's chat completions, as far as judges need it: what is sent, and what has come back.

Constrained replies. OpenAI and most others take a JSON schema (`response_format`); the reply `{"verdict": ...}` is
unwrapped here. vLLM takes that too, but has a form of its own (`structured_outputs`) whose reply is the bare choice: it
suits any tokenizer, while vLLM 0.32 answers a schema with 500 when the model's vocabulary can't spell JSON, as the
embedded judge's can't. Its older `guided_choice` is ignored there, silently.

Thinking (`judge.thinks`). How it is asked for, and where it comes back, is not the same everywhere:

    who (owned_by at /v1/models)   request                                                  thinking in the reply
    OpenAI                         max_completion_tokens, reasoning_effort, no temperature  usage alone
    vLLM, SGLang                   chat_template_kwargs, reasoning_effort                   reasoning, reasoning_content
    others                         reasoning_effort                                         the same, or <think> inline

Sources: OpenAI's API reference (`max_tokens` is "not compatible with o-series models", which also refuse a temperature
other than 1); vLLM's and SGLang's pages on reasoning (`enable_thinking` is Qwen3's name, `thinking` DeepSeek-V3.1's and
Granite's; a template ignores the name that it does not know; vLLM has renamed `reasoning_content` to `reasoning`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from sgpo_core.judges.chat import ChatReply, ChatRequest, after_thinking

_CONSTRAINTS = ("response_format", "structured_outputs")
_LENGTHS = ("max_tokens", "max_completion_tokens")
# What a server may not know and a request can do without, or can say otherwise.
_OPTIONAL = (*_CONSTRAINTS, "chat_template_kwargs", "reasoning_effort", "temperature", "seed", *_LENGTHS)
_WRAPPING_TOKENS = 16  # {"verdict": "..."} round a choice

Server = Literal["openai", "vllm", "sglang", "other"]
_OWNERS: dict[str, Server] = {
    **{"vllm": "vllm", "sglang": "sglang"},
    **{"system": "openai", "openai": "openai", "openai-internal": "openai"},
}


def server_of(owners: Collection[object]) -> Server:
    """Which server calls itself so in `owned_by` of the judge's model at /v1/models."""
    known = [_OWNERS[owner.lower()] for owner in owners if isinstance(owner, str) and owner.lower() in _OWNERS]
    return known[0] if known else "other"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands: which one it is, and the fields that it has refused. `effort` and `extra` are the
    user's: the settings `reasoning_effort` and `extra_body` of `judge.endpoint`."""

    server: Server = "other"
    refused: frozenset[str] = frozenset()
    effort: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The JSON of a request."""
        length = request.max_tokens
        fields: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.choices and self.server == "vllm":
            fields["structured_outputs"] = {"choice": list(request.choices)}
        elif request.choices and "response_format" not in self.refused:
            fields["response_format"] = _schema(request.choices)
            length += _WRAPPING_TOKENS
        fields |= {self._length_name(request): length, **self._thinking(request)}
        if self.server == "openai" and request.thinks:
            del fields["temperature"]
        return _merged({name: value for name, value in fields.items() if name not in self.refused}, self.extra)

    def _length_name(self, request: ChatRequest) -> str:
        """The old name, which most servers know; the new one where that was refused, and for OpenAI's o-series."""
        first, second = reversed(_LENGTHS) if self.server == "openai" and request.thinks else _LENGTHS
        return second if first in self.refused else first

    def _thinking(self, request: ChatRequest) -> dict[str, Any]:
        fields: dict[str, Any] = {"reasoning_effort": self.effort} if self.effort else {}
        if request.thinks is not None and self.server in ("vllm", "sglang"):
            fields["chat_template_kwargs"] = {"enable_thinking": request.thinks, "thinking": request.thinks}
        return fields

    def without(self, sent: dict[str, Any], complaint: str) -> Dialect | None:
        """After a 400 or 422 to `sent`: the dialect that leaves out the field which the server complains of; the
        constraint where it names none; None when there is nothing to leave out. One of the two names of the length
        limit is always sent, and what the user wants is."""
        both = not self.refused.isdisjoint(_LENGTHS)
        needed = {*self.extra, *(_LENGTHS if both else ())}
        optional = [name for name in _OPTIONAL if name in sent and name not in needed]
        suspects = [name for name in optional if name in complaint] or [n for n in optional if n in _CONSTRAINTS]
        return replace(self, refused=self.refused | {suspects[0]}) if suspects else None


def _merged(fields: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Objects in both are merged, too; else `more` decides."""
    both = {
        name: _merged(fields[name], value)
        for name, value in more.items()
        if isinstance(value, Mapping) and isinstance(fields.get(name), Mapping)
    }
    return {**fields, **more, **both}


def _schema(choices: tuple[str, ...]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": list(choices)}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


class _Message(BaseModel):
    """`content` is None for a refusal, or from a reasoning model that came to no answer. What the thinking is made of
    does not matter: it is not read."""

    content: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: Any = None


_MOST_TOKENS = 10**8  # of any request; they are added up and written to columns of 64 bits


class _Usage(BaseModel):
    prompt_tokens: int = Field(0, ge=0, le=_MOST_TOKENS)
    completion_tokens: int = Field(0, ge=0, le=_MOST_TOKENS)
    completion_tokens_details: Any = None

    @property
    def thought(self) -> bool:
        """All that OpenAI tells of it."""
        details = self.completion_tokens_details
        return isinstance(details, dict) and bool(details.get("reasoning_tokens"))


class ChatCompletion(BaseModel):
    """A reply. Parsing it raises pydantic's ValidationError for whatever is none."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None

    def reply(self, request: ChatRequest) -> ChatReply:
        """What the model wrote after its thinking, "" for nothing; the bare choice where it is wrapped in JSON. Tokens
        are 0 where the server does not report them."""
        [first, *_], usage = self.choices, self.usage or _Usage()
        text, inline = after_thinking(first.message.content or "", bool(request.thinks))
        return ChatReply(
            _unwrapped(text, request.choices) if request.choices else text,
            usage.prompt_tokens,
            usage.completion_tokens,
            cut_off=first.finish_reason == "length",
            thought=bool(inline or first.message.reasoning or first.message.reasoning_content or usage.thought),
        )


def _unwrapped(written: str, choices: tuple[str, ...]) -> str:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return written
    verdict = value.get("verdict") if isinstance(value, dict) else None
    return verdict if isinstance(verdict, str) and verdict in choices else written
