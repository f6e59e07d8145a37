"""What the server of a judge answers, whatever it is: a reply, or an error in words that may be shown."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpo_core.config.judge import EndpointSettings
from sgpo_core.judges.chat import ChatRequest, Message
from sgpo_core.judges.chat_completions import Dialect
from sgpo_core.judges.prompts import choices
from tasks.judges import endpoint
from tasks.judges.endpoint import EndpointChat, retry_after
from tests.fuzz.hostile import any_text, texts, values
from tests.fuzz.test_judge_replies import completions

KEY = "key-of-the-judge"
REQUEST = ChatRequest((Message("user", "?"),), 10, choices=choices(3), thinks=True)

_message = st.one_of(values, any_text, texts, st.builds(lambda a, b: f"{a}{KEY}{b}", any_text, any_text))
_error = st.fixed_dictionaries({"error": values | st.fixed_dictionaries({"message": _message})})
_models = st.fixed_dictionaries(
    {"data": values | st.lists(st.fixed_dictionaries({"id": st.just("m"), "owned_by": values}))}
)
bodies = st.one_of(
    st.one_of(completions, completions, _error, _models, values).map(lambda value: json.dumps(value).encode()),
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
)
_charsets = ("hex", "rot13", "utf-7", "idna", "undefined", "nothing", "utf-16", "base64")
_header = st.sampled_from(
    [
        *(("content-type", f"text/plain; charset={charset}") for charset in _charsets),
        *(("content-encoding", encoding) for encoding in ("gzip", "identity", "br", "x")),
        *(("retry-after", wait) for wait in ("0", "-1", "1e999", "nan", "Wed, 21 Oct 99999 07:28:00 GMT", "x")),
        *(("location", place) for place in ("http://[", "//", "/x", "http://h:99999/", "file:///etc/passwd", "\x7f")),
        *(("set-cookie", cookie) for cookie in ("a=b; expires=x", "=", "a=b; domain=.com", ";;")),
        *(("content-length", length) for length in ("0", "-5", "9" * 30)),
    ]
)
_statuses = st.sampled_from(
    [200, 200, 200, 204, 299, 301, 302, 304, 400, 401, 403, 404, 408, 422, 429, 500, 501, 503, 999]
)
_headers = st.lists(_header, max_size=3).map(dict)
_refusals = st.tuples(
    st.sampled_from([400, 404, 422, 429]), _headers, _error.map(lambda value: json.dumps(value).encode())
)
answers = st.tuples(_statuses, _headers, bodies) | _refusals


@pytest.fixture(scope="module")
def chat() -> Iterator[EndpointChat]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGPO_JUDGE_API_KEY", KEY)
        patch.setattr(endpoint, "BACKOFF_S", 0)
        patch.setattr(endpoint, "LONGEST_WAIT_S", 0)
        with EndpointChat(EndpointSettings(url="http://127.0.0.1:9/v1", retries=1), "m") as chat:
            yield chat


@given(st.lists(answers, min_size=1, max_size=3))
def test_any_answer_of_a_server(chat: EndpointChat, said: list[tuple[int, dict[str, str], bytes]]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        status, headers, body = said[0] if len(said) == 1 else said.pop(0)
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    chat._http._transport = httpx.MockTransport(answer)
    chat._dialect, chat._introduced, chat._lost = Dialect(), False, 0  # nothing is known of the one before
    [reply] = chat([REQUEST])
    assert reply.error.isprintable() and KEY not in reply.error and len(reply.error) < 500
    assert not (reply.error and reply.text)


@given(any_text | _header.map(lambda header: header[1]) | st.floats().map(str))
def test_any_wait(header: str) -> None:
    assert 0 <= retry_after(header) <= endpoint.LONGEST_WAIT_S
