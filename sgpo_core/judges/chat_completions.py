"""The wire format of OpenAI's chat completions, as far as judges need it: what is sent, and what has come back.

Constrained replies. OpenAI and most others take a JSON schema (`response_format`); the reply `{"verdict": ...}` is
unwrapped here. vLLM takes that too, but has a form of its own (`structured_outputs`) whose reply is the bare choice: it
suits any tokenizer, while vLLM 0.32 answers a schema with 500 when the model's vocabulary can't spell JSON, as the
embedded judge's can't. Its older `guided_choice` is ignored there, silently.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, Field

from sgpo_core.judges.chat import ChatRequest

# What a server may not know and a request can do without, or can say otherwise.
_OPTIONAL = ("response_format", "structured_outputs", "temperature", "seed", "max_tokens")
_WRAPPING_TOKENS = 16  # {"verdict": "..."} round a choice


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands: whether it is vLLM, and the fields that it has refused."""

    vllm: bool = False
    refused: frozenset[str] = frozenset()

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The JSON of a request. `max_tokens` has become `max_completion_tokens` where it was refused (OpenAI's
        reasoning models)."""
        length = request.max_tokens
        fields: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.choices and self.vllm:
            fields["structured_outputs"] = {"choice": list(request.choices)}
        elif request.choices and "response_format" not in self.refused:
            fields["response_format"] = _schema(request.choices)
            length += _WRAPPING_TOKENS
        fields["max_tokens"] = length
        if "max_tokens" in self.refused:
            fields["max_completion_tokens"] = length
        return {name: value for name, value in fields.items() if name not in self.refused}

    def without(self, sent: dict[str, Any], complaint: str) -> Dialect | None:
        """After a 400 or 422 to `sent`: the dialect that leaves out the field which the server complains of; the
        constraint where it names none; None when there is nothing to leave out."""
        optional = [name for name in _OPTIONAL if name in sent]
        suspects = [name for name in optional if name in complaint] or [n for n in optional if n in _OPTIONAL[:2]]
        return replace(self, refused=self.refused | {suspects[0]}) if suspects else None


def _schema(choices: tuple[str, ...]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": list(choices)}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


class _Message(BaseModel):
    content: str | None = None  # None: a refusal, or a reasoning model that came to no answer


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)


class ChatCompletion(BaseModel):
    """A reply. Parsing it raises pydantic's ValidationError for whatever is none."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None

    def text(self, choices: tuple[str, ...]) -> str:
        """What the model wrote, "" for nothing; the bare choice where it is wrapped in JSON."""
        written = self.choices[0].message.content or ""
        return _unwrapped(written, choices) if choices else written


def _unwrapped(written: str, choices: tuple[str, ...]) -> str:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return written
    verdict = value.get("verdict") if isinstance(value, dict) else None
    return verdict if isinstance(verdict, str) and verdict in choices else written
