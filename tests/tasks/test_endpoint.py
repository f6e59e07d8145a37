"""The client of OpenAI-compatible servers, against a server on loopback that goes wrong in every way we know."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest
from prefect.blocks.system import Secret

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import EndpointSettings
from sgpo_core.judges.chat import ChatReply, ChatRequest, Message
from tasks.judges import endpoint
from tasks.judges.endpoint import EndpointChat, retry_after
from tests.fault_server import (
    Body,
    after_a_minute,
    body,
    bomb,
    completion,
    fault_server,
    half_a_body,
    nothing,
    refuses,
    status,
    trickle,
    without_end,
)

SECRET = "sk-do-not-show-4711"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.01)
    for name in ("SGPO_JUDGE_URL", "SGPO_JUDGE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def ask(text: str = "hello", **more: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), max_tokens=5, **more)


def client(url: str, **settings: Any) -> EndpointChat:
    return EndpointChat(EndpointSettings(url=url, **{"timeout_s": 30.0} | settings), "judge")


def test_replies_come_in_the_order_of_the_requests() -> None:
    with fault_server() as server, client(server.url, concurrency=4) as chat:
        replies = chat([ask(f"q{i}") for i in range(20)])
    assert replies == [ChatReply(f"reply to q{i}", 11, 7) for i in range(20)]
    assert (chat.calls, chat.tokens) == (20, 20 * 18)


def test_what_is_asked() -> None:
    messages = (Message("system", "be a judge"), Message("user", "first wrong step?"))
    with fault_server() as server, client(server.url) as chat:
        chat([ChatRequest(messages, max_tokens=9, temperature=0.5, seed=3)])
    assert server.bodies == [
        {
            "model": "judge",
            "messages": [
                {"role": "system", "content": "be a judge"},
                {"role": "user", "content": "first wrong step?"},
            ],
            "max_tokens": 9,
            "temperature": 0.5,
            "seed": 3,
        }
    ]
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "fault",
    [
        status(429),
        status(429, Retry_After="0.05"),
        status(500),
        status(503),
        half_a_body,
        body(b'{"choices": [{"mess'),
        body(b"\xff\xfe garbage"),
        body(b"[" * 100_000),
        body(b"<html>at work</html>"),
        body(b'{"choices": []}'),
        body(b'{"error": {"message": "overloaded"}}'),
        body(b'{"choices": [{"message": {"content": 7}}]}'),
        body(b"null"),
        body(json.dumps(completion("x") | {"usage": {"prompt_tokens": 10**30}}).encode()),
        body(json.dumps(completion("x") | {"usage": {"completion_tokens": 1e30}}).encode()),
        nothing,
    ],
)
def test_what_passes_is_tried_again(fault: Callable[[Any], None]) -> None:
    with fault_server(faults=[fault, fault]) as server, client(server.url, retries=2) as chat:
        assert chat([ask()]) == [ChatReply("reply to hello", 11, 7)]
    assert chat.calls == len(server.bodies) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(429), "answered 429 Too Many Requests"),
        (status(500), "answered 500 Internal Server Error"),
        (half_a_body, "no answer from http://127.0.0.1"),
        (body(b"garbage"), "sent no chat completion"),
        (nothing, "no answer from http://127.0.0.1"),
    ],
)
def test_what_does_not_pass_is_an_error_after_the_last_try(fault: Callable[[Any], None], reason: str) -> None:
    with fault_server(faults=[fault] * 9) as server, client(server.url, retries=2) as chat:
        [reply] = chat([ask()])
    assert reply.text == "" and reason in reply.error
    assert len(server.bodies) == 3


@pytest.mark.parametrize("charset", ["hex", "rot13", "idna", "undefined", "nothing"])
def test_a_refusal_in_a_charset_that_is_none(charset: str) -> None:
    """Python has codecs under these names that decode no text."""
    fault = status(400, "no", Content_Type=f"text/plain; charset={charset}")
    with fault_server(faults=[fault]) as server, client(server.url, retries=0) as chat:
        assert "answered 400 Bad Request: no" in chat([ask()])[0].error


def test_the_words_of_a_server_do_nothing_to_a_terminal_or_a_table() -> None:
    fault = status(404, "\x1b[2Jno\x00 model\u202e \ud800here")
    with fault_server(faults=[fault]) as server, client(server.url, retries=0) as chat:
        assert "answered 404 Not Found: [2Jno model here (" in chat([ask()])[0].error


@pytest.mark.parametrize(("fault", "reason"), [(without_end, "sent more than 8 MiB"), (bomb, "compressed its answer")])
def test_a_reply_of_any_size_takes_little_memory(fault: Callable[[Any], None], reason: str) -> None:
    with fault_server(faults=[fault] * 2) as server, client(server.url, retries=1) as chat:
        tracemalloc.start()
        [reply] = chat([ask()])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert reason in reply.error
    assert peak < 40 * 2**20


@pytest.mark.parametrize("fault", [after_a_minute, trickle])
def test_a_try_has_a_hard_deadline(fault: Callable[[Any], None]) -> None:
    began = time.monotonic()
    with fault_server(faults=[fault] * 2) as server, client(server.url, retries=1, timeout_s=0.3) as chat:
        [reply] = chat([ask()])
    assert reply.error == "no answer within judge.endpoint.timeout_s=0.3"
    assert 0.6 <= time.monotonic() - began < 30


def test_a_slow_try_may_be_followed_by_a_quick_one() -> None:
    with fault_server(faults=[after_a_minute]) as server, client(server.url, timeout_s=0.5) as chat:
        assert chat([ask()])[0].text == "reply to hello"


@pytest.mark.parametrize(("code", "advice"), [(401, "SGPO_JUDGE_API_KEY"), (404, "judge.model"), (302, "302 Found")])
def test_what_holds_for_every_request_is_found_out_once(code: int, advice: str) -> None:
    with fault_server(faults=[status(code)] * 99) as server, client(server.url, concurrency=2) as chat:
        replies = chat([ask()] * 50)
    assert all(str(code) in reply.error and advice in reply.error for reply in replies)
    assert len(server.bodies) <= 2


def test_a_refused_request_is_not_tried_again_and_stands_alone() -> None:
    with fault_server(faults=[status(403), status(413)]) as server, client(server.url, concurrency=1) as chat:
        replies = chat([ask(f"q{i}") for i in range(3)])
    assert [bool(reply.error) for reply in replies] == [True, True, False]
    assert len(server.bodies) == 3


def test_retry_after_is_kept_by_all() -> None:
    with fault_server(faults=[status(429, Retry_After="0.4")]) as server, client(server.url, concurrency=1) as chat:
        assert not any(reply.error for reply in chat([ask()] * 3))
    waits = [later - sooner for sooner, later in zip(server.times, server.times[1:], strict=False)]
    assert waits[0] >= 0.39 and len(server.bodies) == 4


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("1e9", 60), ("inf", 60), ("nan", 0), ("soon", 0)],
)
def test_retry_after_in_seconds(header: str, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    assert 25 < retry_after(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert retry_after(formatdate(time.time() + 9999, usegmt=True)) == 60
    assert retry_after("Sat, 21 Nov 2020 05:00:00 GMT") == 0
    assert retry_after("Sat, 99 Nov 99999 05:00:00 GMT") == 0


def test_a_dead_server_is_found_out_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        with client(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", concurrency=4, retries=2) as chat:
            replies = chat([ask()] * 500)
    assert {reply.error.partition("/v1")[2] for reply in replies} == {" (ConnectError)"}
    assert chat.calls < 4 * 3 * 2  # 4 at a time, 3 tries each, and what began before the last of them was given up


def test_a_server_that_comes_back_is_used_again() -> None:
    with fault_server(faults=[status(500)] * 2) as server, client(server.url, retries=1) as chat:
        assert chat([ask()])[0].error and not chat([ask()])[0].error


def test_a_request_that_fails_before_others_are_ready_does_not_end_them() -> None:
    def slow(_: Body) -> Body:
        time.sleep(0.3)
        return completion("ok")

    with (
        fault_server(faults=[status(500)], answer=slow) as server,
        client(server.url, retries=0, concurrency=4) as chat,
    ):
        replies = chat([ask(f"q{i}") for i in range(8)])
    assert sum(bool(reply.error) for reply in replies) == 1


def test_one_bad_request_does_not_end_the_others() -> None:
    def choosy(asked: Body) -> Body:
        return {} if asked["messages"][-1]["content"] == "bad" else completion("ok")

    with fault_server(answer=choosy, seconds=0.02) as server, client(server.url, concurrency=2, retries=1) as chat:
        replies = chat([ask("bad"), *[ask(f"q{i}") for i in range(10)]])
    assert [reply.text for reply in replies] == ["", *["ok"] * 10]


def test_no_more_at_a_time_than_allowed_from_all_threads_together() -> None:
    with fault_server(seconds=0.03) as server, client(server.url, concurrency=3) as chat:
        threads = [threading.Thread(target=chat, args=([ask()] * 5,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.bodies) == 20 and server.most_at_once == 3


def test_the_rate_limit() -> None:
    began = time.monotonic()
    with fault_server() as server, client(server.url, requests_per_minute=600) as chat:
        chat([ask()] * 6)
    assert time.monotonic() - began >= 0.5  # 600 a minute: one each 0.1 s, the first at once
    assert len(server.bodies) == 6


def test_the_cap_on_calls_counts_tries() -> None:
    with fault_server(faults=[status(500)]) as server, client(server.url, max_calls=3, concurrency=8) as chat:
        replies = chat([ask()] * 20)
        again = chat([ask()])
    assert len(server.bodies) == chat.calls == 3
    capped = "spending cap judge.endpoint.max_calls=3 reached"
    assert {reply.error for reply in [*replies, *again]} == {"", capped}
    assert sum(not reply.error for reply in replies) == 2  # the third call was the 500


def test_the_cap_on_tokens() -> None:
    with fault_server() as server, client(server.url, max_tokens=40, concurrency=1) as chat:
        replies = chat([ask()] * 5)
    # 18 tokens each: 18 and 36 are below the cap, 54 is not
    assert [reply.error for reply in replies] == [""] * 3 + ["spending cap judge.endpoint.max_tokens=40 reached"] * 2
    assert len(server.bodies) == 3


def test_tokens_that_are_not_reported_count_as_what_they_may_be() -> None:
    answer = {"choices": completion("ok")["choices"]}
    with fault_server(answer=lambda _: answer) as server, client(server.url) as chat:
        assert chat([ask("four")]) == [ChatReply("ok")]
    assert chat.tokens == 5 + len("four")  # max_tokens, and a token a byte


CHOICES = ("none", "1", "2")


def test_choices_become_a_schema_and_the_reply_is_unwrapped() -> None:
    with fault_server(answer=lambda _: completion('{"verdict": "2"}')) as server, client(server.url) as chat:
        assert chat([ask(choices=CHOICES)])[0].text == "2"
    [asked] = server.bodies
    schema = asked["response_format"]["json_schema"]
    assert asked["response_format"]["type"] == "json_schema" and schema["strict"] is True
    assert schema["schema"]["properties"] == {"verdict": {"type": "string", "enum": ["none", "1", "2"]}}
    assert asked["max_tokens"] == 5 + 16  # room for the JSON round the choice


def test_vllm_is_asked_in_its_own_way() -> None:
    answer = completion("2")
    with fault_server(owner="vllm", answer=lambda _: answer) as server, client(server.url) as chat:
        assert chat([ask(choices=CHOICES)])[0].text == "2"
    [asked] = server.bodies
    assert asked["structured_outputs"] == {"choice": ["none", "1", "2"]}
    assert "response_format" not in asked and asked["max_tokens"] == 5


@pytest.mark.parametrize(
    "text",
    ["2", '{"verdict": "9"}', '{"verdict": ["2"]}', '["2"]', '{"verdict": "2', "[" * 100_000, "no JSON", ""],
    ids=["bare", "no choice", "a list", "no object", "half", "deep", "prose", "nothing"],
)
def test_a_constrained_reply_that_is_none_is_left_to_the_parser(text: str) -> None:
    with fault_server(answer=lambda _: completion(text)) as server, client(server.url) as chat:
        assert chat([ask(choices=CHOICES)]) == [ChatReply(text, 11, 7)]


def test_a_reasoning_model_that_came_to_no_answer() -> None:
    answer = completion(None, reasoning_content="Let me think ...")
    with fault_server(answer=lambda _: answer) as server, client(server.url) as chat:
        assert chat([ask(choices=CHOICES)]) == [ChatReply("", 11, 7, thought=True)]


@pytest.mark.parametrize("complaint", ["unknown field {}", "no", ""])
def test_a_server_without_response_format_is_asked_without(complaint: str, caplog: pytest.LogCaptureFixture) -> None:
    fault = refuses("response_format", complaint=complaint)
    with fault_server(faults=[fault] * 99) as server, client(server.url) as chat:
        assert chat([ask(choices=CHOICES)])[0].text == "reply to hello"
        assert chat([ask(choices=CHOICES)])[0].text == "reply to hello"
    assert ["response_format" in asked for asked in server.bodies] == [True, False, False]
    assert len(caplog.records) == 1 and "does not accept response_format" in caplog.text


def test_one_name_of_the_length_limit_is_always_sent() -> None:
    fault = refuses("max_tokens", "max_completion_tokens", complaint="{} is too large")
    with fault_server(faults=[fault] * 9) as server, client(server.url) as chat:
        assert "answered 400 Bad Request: max_completion_tokens is too large" in chat([ask()])[0].error
    assert [{"max_tokens", "max_completion_tokens"} & set(asked) for asked in server.bodies] == [
        {"max_tokens"},
        {"max_completion_tokens"},
    ]


def test_openai_reasoning_models_want_other_names() -> None:
    fault = refuses("max_tokens", "temperature", complaint="Unsupported parameter: {}")
    with fault_server(faults=[fault] * 99) as server, client(server.url) as chat:
        assert not any(reply.error for reply in chat([ask()]) + chat([ask()]))
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 5 and not {"max_tokens", "temperature"} & set(last)
    assert len(server.bodies) == 4  # two refusals were enough


def test_a_request_that_is_refused_whatever_it_lacks_teaches_nothing() -> None:
    too_long = status(400, "the prompt and max_tokens are longer than the context")
    with fault_server(faults=[too_long] * 3) as server, client(server.url) as chat:
        [refused] = chat([ask(choices=CHOICES)])
        chat([ask(choices=CHOICES)])
    assert "answered 400 Bad Request: the prompt and max_tokens are longer" in refused.error
    assert "response_format" in server.bodies[-1] and "max_tokens" in server.bodies[-1]


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SGPO_JUDGE_API_KEY", SECRET)
    with fault_server(key=SECRET) as server, client(server.url, retries=1) as chat:
        assert chat([ask()])[0].error == ""
        server.key = "another"
        wrong = chat([ask()])
        server.faults, server.key = [nothing] * 2, ""
        lost = chat([ask()])
        server.faults = [status(422, f"no field {SECRET}"), status(400, "x" * 999)]
        refused = chat([ask()]) + chat([ask()])
        seen = [repr(chat), str(vars(chat)), repr(chat.settings), str(wrong), str(lost), str(refused), caplog.text]
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert wrong[0].error and lost[0].error and caplog.text
    assert [len(reply.error) < 300 for reply in refused] == [True, True]
    assert not any(SECRET in text for text in seen)


def test_the_key_of_a_prefect_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGPO_JUDGE_API_KEY", "not this one")
    blocks = {"judge-key": Secret(value=SECRET)}

    def load(name: str) -> Secret:
        if name not in blocks:
            raise ValueError(f"Unable to find block document named {name} for block type secret")
        return blocks[name]

    monkeypatch.setattr(Secret, "load", load)  # starting a Prefect server takes longer than all other tests together
    with fault_server(key=SECRET) as server, client(server.url, key_block="judge-key") as chat:
        assert chat([ask()])[0].error == ""
        with pytest.raises(ConfigError, match=r"judge\.endpoint\.key_block=other.*Prefect Secret block"):
            client(server.url, key_block="other")


def test_keys_of_other_programs_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Gateway: {SECRET}")
    with fault_server() as server, client(server.url) as chat:
        chat([ask()])
    assert SECRET not in json.dumps(server.headers)


def test_a_proxy_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with fault_server() as server, client(server.url) as chat:
        assert chat([ask()])[0].error == ""


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("", "", r"judge\.endpoint\.url or SGPO_JUDGE_URL"),
        ("judge.example/v1", "", "no base URL"),
        ("ftp://judge.example/v1", "", "no base URL"),
        ("http://", "", "no base URL"),
        (f"https://user:{SECRET}@judge.example/v1", "", "the key goes to SGPO_JUDGE_API_KEY"),
        (f"https://judge.example/v1?key={SECRET}", "", "the key goes to SGPO_JUDGE_API_KEY"),
        ("http://judge.example/v1", SECRET, "unencrypted"),
        ("http://10.0.0.7:8000/v1", SECRET, "unencrypted"),
        ("HTTP://judge.example/v1", SECRET, "unencrypted"),
        ("http://127.0.0.1.judge.example/v1", SECRET, "unencrypted"),
        ("https://judge.example/v1", f"{SECRET}\n{SECRET}", "pasted whole"),
        ("https://judge.example/v1", f"{SECRET}é", "pasted whole"),
    ],
)
def test_what_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, url: str, key: str, message: str) -> None:
    monkeypatch.setenv("SGPO_JUDGE_API_KEY", key)
    with pytest.raises(ConfigError, match=message) as error:
        client(url)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://judge.example/v1", ""),
        ("https://judge.example/v1", SECRET),
        ("http://localhost:8000/v1", SECRET),
        ("http://[::1]:8000/v1/", SECRET),
    ],
)
def test_what_is_taken(monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    monkeypatch.setenv("SGPO_JUDGE_API_KEY", f"{key}\n")
    monkeypatch.setenv("SGPO_JUDGE_URL", url)
    with client("") as chat:
        assert chat.url == url.rstrip("/")


def test_closing_ends_what_is_in_flight() -> None:
    with fault_server(faults=[after_a_minute]) as server:
        chat = client(server.url)

        def call() -> None:
            with suppress(CancelledError):
                chat([ask()])

        thread = threading.Thread(target=call)
        thread.start()
        while not server.bodies:
            time.sleep(0.01)
        chat.close()
        chat.close()
        thread.join(30)
        assert not thread.is_alive()
