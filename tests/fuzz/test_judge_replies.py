"""What a judge writes, whatever it is: a verdict on one of the steps, or an abstention with its reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.chat import ChatReply, ChatRequest, after_thinking
from sgpo_core.judges.chat_completions import ChatCompletion
from sgpo_core.judges.prompted import PromptedJudge
from sgpo_core.judges.prompts import PROMPTS, choices, parse
from sgpo_core.types import Problem, Verdict
from tests.fuzz.hostile import any_text, encodable, texts, values

_number = st.sampled_from(["none", "None", "1", "2", "3", "0", "-1", "99", "٣", "²", "9" * 20, "9" * 5000])
_around = st.sampled_from(["", " ", "**", "_", "`", '"', "\\boxed{", "\\text{", "}", "(", ")", ":", ".", "\n", " is "])
_lead = st.sampled_from(
    ["First wrong step: ", "the first error is ", "Verdict:", "step 2 is wrong. ", "Step **3** was false"]
)
replies = st.lists(st.one_of(_number, _around, _lead, any_text), max_size=12).map("".join) | texts
contents = st.one_of(replies, _number.map(lambda n: json.dumps({"verdict": n})), values.map(json.dumps))


def is_sound(verdict: Verdict, steps: int) -> bool:
    step = verdict.first_error_step
    if verdict.abstained:
        return step is None and bool(verdict.reason)
    return step is None or 1 <= step <= steps


@given(replies, st.integers(1, 12))
def test_a_reply_as_a_verdict(text: str, steps: int) -> None:
    verdict = parse(text, steps)
    assert is_sound(verdict, steps) and verdict.reason.isascii() and len(verdict.reason) < 200


@given(replies, st.booleans())
def test_what_follows_the_thinking(text: str, thinks: bool) -> None:
    rest, thought = after_thinking(text, thinks)
    assert text.endswith(rest) and (thought or rest == text)


@dataclass
class Scripted:
    """A model that gives these replies in turn."""

    replies: Sequence[ChatReply]
    asked: int = 0

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        start = self.asked
        self.asked += len(requests)
        assert all(encodable(message.content) for request in requests for message in request.messages)
        return list(islice(cycle(self.replies), start, self.asked))


_tokens = st.integers(0, 10**8)
_reply = st.builds(ChatReply, replies, _tokens, _tokens, st.sampled_from(["", "", "", "no answer"]), st.booleans())


@given(
    texts,
    st.lists(_reply, min_size=1, max_size=4),
    st.sampled_from(sorted(PROMPTS)),
    st.integers(1, 3),
    st.sampled_from([None, True, False]),
)
def test_a_whole_judgment(text: str, said: list[ChatReply], prompt: str, votes: int, thinks: bool | None) -> None:
    settings = JudgeSettings(prompt=prompt, votes=votes, temperature=0.5, thinks=thinks)
    item = Item(Problem("p", text, "1", text), tuple(segment(text)))
    [judgment] = PromptedJudge(Scripted(said), PROMPTS[prompt], settings)([item])
    assert all(is_sound(verdict, len(item.steps)) for verdict in (judgment.verdict, *judgment.votes))
    assert judgment.agreement is None or 0 < judgment.agreement <= 1
    assert len(judgment.votes) == (votes if item.steps else 0)


_message = st.fixed_dictionaries({"content": contents | values}, optional={"reasoning": values})
_choice = st.fixed_dictionaries({"message": _message}, optional={"finish_reason": st.just("length") | values})
_details = values | st.fixed_dictionaries({"reasoning_tokens": values})
_counts = dict.fromkeys(("prompt_tokens", "completion_tokens"), st.integers() | st.sampled_from([10**9, -1]) | values)
_usage = values | st.fixed_dictionaries({}, optional={**_counts, "completion_tokens_details": _details})
completions = st.fixed_dictionaries({"choices": st.lists(_choice, max_size=2)}, optional={"usage": _usage})


@given(completions | values, st.sampled_from([None, True, False]))
def test_a_chat_completion(completion: object, thinks: bool | None) -> None:
    """A reply with bounded counts, or pydantic's ValidationError, which the client takes for no reply."""
    try:
        parsed = ChatCompletion.model_validate_json(json.dumps(completion))
    except ValidationError:
        return
    reply = parsed.reply(ChatRequest((), 10, choices=choices(3), thinks=thinks))
    assert encodable(reply.text) and reply.error == ""
    assert 0 <= reply.prompt_tokens <= 10**8 and 0 <= reply.completion_tokens <= 10**8
