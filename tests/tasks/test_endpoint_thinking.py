"""Judges that think before they write, behind a server on loopback that thinks as long as it is let."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.run import load_run
from sgpo_core.judges.chat import ChatReply, ChatRequest, Message
from sgpo_core.judges.processbench import generated
from sgpo_core.types import Judgment, Verdict
from tasks.judges.endpoint import EndpointChat
from tasks.judges.kinds import open_judge
from tests.fault_server import Body, FaultServer, Thinker, completion, fault_server, refuses, status

ITEMS = [example.item() for example in generated(4)]
WAYS = ["reasoning", "reasoning_content", "inline", "headless", "hidden"]
CHOICES = ("none", "1", "2")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    monkeypatch.delenv("SGPO_JUDGE_API_KEY", raising=False)


def settings(server: FaultServer, endpoint: dict[str, Any] | None = None, **more: Any) -> JudgeSettings:
    where = {"url": server.url, "timeout_s": 30, **(endpoint or {})}
    return JudgeSettings.model_validate({"name": "endpoint", "model": "judge", "endpoint": where, **more})


def judged(asked: JudgeSettings) -> list[Judgment]:
    with open_judge(asked) as judge:
        return judge(ITEMS)


@pytest.mark.parametrize("prompt", ["critique-v2", "marker-v1"])
@pytest.mark.parametrize("where", WAYS)
def test_a_verdict_is_what_follows_the_thinking(where: str, prompt: str) -> None:
    with fault_server(answer=Thinker(where, words=2000)) as server:
        given = judged(settings(server, prompt=prompt, thinks=True))
    assert [j.verdict for j in given] == [Verdict(2)] * 4
    turns = 2 if prompt == "critique-v2" else 1
    assert all(j.completion_tokens > 2000 * turns and not j.transient for j in given)


@pytest.mark.parametrize("where", WAYS)
@pytest.mark.parametrize("prompt", ["critique-v2", "marker-v1"])
def test_a_thinker_that_is_not_known_as_one_is_named(where: str, prompt: str, caplog: pytest.LogCaptureFixture) -> None:
    """As every reasoning judge was: its thinking uses up the 32 tokens of the verdict."""
    with fault_server(answer=Thinker(where, words=200)) as server:
        given = judged(settings(server, prompt=prompt))
    assert all(j.verdict.abstained and j.transient for j in given)
    assert all("judge.thinks=true" in j.verdict.reason for j in given)
    assert "4 of 4 votes are not kept: the judge's verdict is cut off at 32 tokens" in caplog.text


@pytest.mark.parametrize("where", WAYS)
def test_thinking_that_does_not_end_is_not_kept_and_names_the_setting(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with fault_server(answer=Thinker(where, words=500)) as server:
        asked = settings(server, prompt="marker-v1", thinks=True, thinking_tokens=400)
        first, calls = judged(asked), len(server.bodies)
        server.answer = Thinker(where, words=300)  # it happens to think less
        again = judged(asked)
        known = judged(asked)
    assert calls == 4 and len(server.bodies) == 8
    for judgment in first:
        assert "cut off at 432 tokens, while it thought" in judgment.verdict.reason
        assert "raise judge.thinking_tokens=400" in judgment.verdict.reason
    assert caplog.text.count("4 of 4 votes are not kept") == 1
    assert [(j.verdict, j.cached) for j in again] == [(Verdict(2), False)] * 4
    assert [(j.verdict, j.cached) for j in known] == [(Verdict(2), True)] * 4


def test_a_model_that_can_do_both_is_told_not_to_think() -> None:
    with fault_server(owner="vllm", answer=Thinker(words=2000)) as server:
        given = judged(settings(server, thinks=False))
        assert {asked["max_tokens"] for asked in server.bodies} == {1024, 32}
    assert [j.verdict for j in given] == [Verdict(2)] * 4


def ask(**more: Any) -> ChatRequest:
    return ChatRequest((Message("user", "hello"),), 500, 0.6, 3, **more)


def sent(owner: str, request: ChatRequest, **endpoint: Any) -> Body:
    """The body of a request, without model and messages."""
    with fault_server(owner=owner) as server:
        asked = settings(server, endpoint, thinks=True)
        with EndpointChat(asked.endpoint, "judge") as chat:
            chat([request])
        [body] = server.bodies
        return {name: value for name, value in body.items() if name not in ("model", "messages")}


ON, OFF = ({"enable_thinking": on, "thinking": on} for on in (True, False))
PLAIN = {"max_tokens": 500, "temperature": 0.6, "seed": 3}


@pytest.mark.parametrize(
    ("owner", "thinks", "body"),
    [
        ("system", True, {"max_completion_tokens": 500, "seed": 3, "reasoning_effort": "low"}),
        ("OpenAI", True, {"max_completion_tokens": 500, "seed": 3, "reasoning_effort": "low"}),
        ("openai", None, {**PLAIN, "reasoning_effort": "low"}),
        ("vllm", True, {**PLAIN, "chat_template_kwargs": ON, "reasoning_effort": "low"}),
        ("vllm", False, {**PLAIN, "chat_template_kwargs": OFF, "reasoning_effort": "low"}),
        ("sglang", True, {**PLAIN, "chat_template_kwargs": ON, "reasoning_effort": "low"}),
        ("somebody", True, {**PLAIN, "reasoning_effort": "low"}),
    ],
)
def test_each_server_is_asked_in_its_own_way(owner: str, thinks: bool | None, body: Body) -> None:
    assert sent(owner, ask(thinks=thinks), reasoning_effort="low") == body


def test_nothing_is_sent_of_thinking_by_default() -> None:
    for owner in ("vllm", "sglang", "openai", "somebody"):
        assert sent(owner, ask()) == PLAIN


def test_the_user_s_own_fields_are_sent_and_win() -> None:
    extra = {"chat_template_kwargs": {"thinking_budget": 9, "thinking": False}, "top_k": 20, "temperature": 1}
    assert sent("vllm", ask(thinks=True), extra_body=extra) == {
        **PLAIN,
        "chat_template_kwargs": {"enable_thinking": True, "thinking": False, "thinking_budget": 9},
        "top_k": 20,
        "temperature": 1,
    }
    assert sent("somebody", ask(thinks=True), extra_body={"reasoning": {"effort": "high"}}) == {
        **PLAIN,
        "reasoning": {"effort": "high"},
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+judge.endpoint.extra_body.model=other", r"extra_body may not hold model: leave it out"),
        ("+judge.endpoint.extra_body={stream: true}", r"extra_body may not hold stream"),
        ("+judge.endpoint.extra_body.API_Key=sk-4711", r"may not hold API_Key: the key goes to SGPO_JUDGE_API_KEY"),
        ("judge.endpoint.reasoning_effort=low", r"reasoning_effort=low is for a judge that thinks: set judge\.thinks"),
    ],
)
def test_settings_that_can_not_be_used_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_run("tiny", ["judge=endpoint", "judge.model=x", override])
    assert "4711" not in str(error.value)


def test_the_preset_of_one() -> None:
    judge = load_run("tiny", ["judge=o4-mini"]).judge
    assert (judge.name, judge.model, judge.thinks) == ("endpoint", "o4-mini", True)
    more = load_run("tiny", ["judge=o4-mini", "+judge.endpoint.extra_body={service_tier: flex}"]).judge.endpoint
    assert (more.reasoning_effort, more.extra_body) == ("medium", {"service_tier": "flex"})


@pytest.mark.parametrize("name", ["chat_template_kwargs", "reasoning_effort"])
def test_a_server_that_refuses_to_be_told_is_asked_without(name: str, caplog: pytest.LogCaptureFixture) -> None:
    fault = refuses(name, complaint="Unrecognized request argument supplied: {}")
    with fault_server(owner="sglang", faults=[fault] * 9, answer=Thinker()) as server:
        asked = settings(server, {"reasoning_effort": "low"}, thinks=True)
        with EndpointChat(asked.endpoint, "judge") as chat:
            assert [r.text for r in chat([ask(thinks=True)]) + chat([ask(thinks=True)])] == ["Step 2 is wrong."] * 2
    assert [name in body for body in server.bodies] == [True, False, False]
    assert f"does not accept {name}" in caplog.text


def test_what_the_user_asks_for_is_never_left_out() -> None:
    with fault_server(faults=[status(400, "unknown field top_k and seed")] * 9) as server:
        asked = settings(server, {"extra_body": {"top_k": 1, "seed": 2}})
        with EndpointChat(asked.endpoint, "judge") as chat:
            assert "unknown field top_k" in chat([ask()])[0].error
    assert [body["seed"] for body in server.bodies] == [2]


def test_openai_s_reasoning_models_behind_a_proxy_that_hides_their_owner() -> None:
    """Their own words for what they refuse."""
    message = "Unsupported parameter: '{}' is not supported with this model. Use 'max_completion_tokens' instead."
    fault = refuses("max_tokens", "temperature", complaint=message)
    with fault_server(faults=[fault] * 99, answer=Thinker("hidden", words=900)) as server:
        given = judged(settings(server, {"concurrency": 1, "reasoning_effort": "low"}, thinks=True))
    assert [j.verdict for j in given] == [Verdict(2)] * 4
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 8192 + 32 + 16 and not {"max_tokens", "temperature"} & set(last)


def test_a_constrained_verdict_is_unwrapped_behind_inline_thinking() -> None:
    answer = completion('<think>{"verdict": "1"}?</think>\n{"verdict": "2"}')
    with fault_server(answer=lambda _: answer) as server, EndpointChat(settings(server).endpoint, "judge") as chat:
        assert chat([ask(choices=CHOICES)]) == [ChatReply("2", 11, 7, thought=True)]


@pytest.mark.parametrize("odd", [7, ["a", {"b": 1}], {"text": "x"}])
def test_thinking_of_any_form_is_no_broken_reply(odd: object) -> None:
    answer = completion("2", reasoning=odd, reasoning_content=odd)
    answer["usage"]["completion_tokens_details"] = odd
    with fault_server(answer=lambda _: answer) as server, EndpointChat(settings(server).endpoint, "judge") as chat:
        assert chat([ask()]) == [ChatReply("2", 11, 7, thought=True)]
