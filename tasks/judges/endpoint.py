"""The client of OpenAI-compatible servers: many requests at once, within limits, and a reply to each whatever happens.

    requests ─▶ `concurrency` at a time ─▶ rate limit ─▶ spending cap ─▶ POST, hard deadline ─▶ reply, checked
                            ▲                                                                     │
                            └──── backoff, or what Retry-After says ◀── 429, 5xx, lost, late, garbage

Plain HTTP rather than the `openai` package: that one sends OPENAI_CUSTOM_HEADERS, organization and keys from the
environment to whatever server it is pointed at, starts its timeout anew with every byte, takes any JSON for a reply,
and retries where a cap can't count.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import httpx2 as httpx
from pydantic import ValidationError

from sgpo_core.config.judge import EndpointSettings
from sgpo_core.judges.chat import ChatReply, ChatRequest
from sgpo_core.judges.chat_completions import ChatCompletion, Dialect, server_of
from tasks.judges.endpoint_access import KEY, api_key, base_url, is_loopback

BACKOFF_S = 0.5  # before the second try; twice as long before each further one
LONGEST_WAIT_S = 60.0  # of a backoff, and of what Retry-After may ask for
LARGEST_REPLY = 1 << 23  # bytes; a critique with its thinking has less than a hundredth of that
FEWEST_LOST = 3  # requests in a row that show that a server does not work; as many as are in flight, if that is more

log = logging.getLogger("sgpo.endpoint")


@dataclass(eq=False)  # not frozen: Python writes the traceback into it
class _Failed(Exception):
    """A try without a reply. `reason` may be shown."""

    reason: str
    again: bool = False
    hopeless: bool = False  # so will be every other request
    complaint: str = ""  # of a server that refuses the request as it is; not shown


@dataclass(slots=True)
class _Batch:
    """The requests of one call. Once `hopeless` says why, those that are left are not sent."""

    hopeless: str = ""


class EndpointChat:
    """A `Chat`; use it as a context manager, or `close` it. May be called from several threads at once: the limits
    hold for all of them together, and the caps for its whole life.

    Raises ConfigError when address or key are missing or unsafe.
    """

    def __init__(self, settings: EndpointSettings, model: str) -> None:
        self.settings, self.model = settings, model
        self.calls = 0  # tries, whatever came of them
        self.tokens = 0  # read and written, as far as replies came
        self.url = base_url(settings)
        self._dialect = Dialect(effort=settings.reasoning_effort, extra=settings.extra_body)
        self._introduced = False
        self._lost = 0  # requests given up since the last reply
        self._next_turn = 0.0
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._introduction = asyncio.Lock()
        key = api_key(settings, self.url)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            # Not compressed: a small body might unpack to one of any size.
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.concurrency),
            trust_env=not is_loopback(self.url),  # a proxy would look for its own 127.0.0.1
        )
        self._loop = asyncio.new_event_loop()  # all that changes, changes in its thread
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge-endpoint", daemon=True)
        self._thread.start()

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        future = asyncio.run_coroutine_threadsafe(self._answer_all(requests), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __enter__(self) -> EndpointChat:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is in flight, and the thread."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def _answer_all(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        batch = _Batch()
        return list(await asyncio.gather(*(self._answer(request, batch) for request in requests)))

    async def _answer(self, request: ChatRequest, batch: _Batch) -> ChatReply:
        """Tries until there is a reply, or no sense in it. When as many requests as can be in flight have used up their
        tries with no reply in between, the server does not work: the batch ends there."""
        async with self._slots:
            failed = _Failed("")
            for attempt in range(self.settings.retries + 1):
                if batch.hopeless:
                    return ChatReply("", error=batch.hopeless)
                if attempt:
                    wait = min(BACKOFF_S * 2 ** (attempt - 1), LONGEST_WAIT_S)
                    await asyncio.sleep(wait * random.uniform(0.5, 1))
                try:
                    return await self._understood(request)
                except _Failed as error:
                    failed = error
                    if not failed.again:
                        break
            self._lost += failed.again
            if failed.hopeless or self._lost >= max(self.settings.concurrency, FEWEST_LOST):
                batch.hopeless = failed.reason
            return ChatReply("", error=failed.reason)

    async def _understood(self, request: ChatRequest) -> ChatReply:
        """One try, in the server's dialect; what is learned of it is kept once it has led to a reply."""
        if (request.choices or request.thinks is not None) and not self._introduced:
            await self._introduce()
        dialect = self._dialect
        while True:
            body = dialect.body(request, self.model)
            try:
                completion = await self._complete(body)
            except _Failed as failed:
                simpler = dialect.without(body, failed.complaint) if failed.complaint else None
                if simpler is None:
                    raise
                dialect = simpler
                continue
            self._learn(dialect.refused - self._dialect.refused)
            return self._reply(request, completion)

    def _learn(self, refused: frozenset[str]) -> None:
        if refused:
            self._dialect = replace(self._dialect, refused=self._dialect.refused | refused)
            log.warning("%s does not accept %s: asked without from now on", self.url, ", ".join(sorted(refused)))

    def _reply(self, request: ChatRequest, completion: ChatCompletion) -> ChatReply:
        self._lost = 0
        reply = completion.reply(request)
        if completion.usage:
            self.tokens += reply.prompt_tokens + reply.completion_tokens
        else:  # Not reported: at most so many, for the cap to hold. No token is shorter than a byte.
            self.tokens += request.max_tokens + sum(len(m.content.encode(errors="replace")) for m in request.messages)
        return reply

    async def _introduce(self) -> None:
        """Asks once which server it is; one that can't say is any other."""
        async with self._introduction:
            if not self._introduced:
                response = await self._send("GET", "models")
                served = _json(response) if response.is_success else {}
                models = served.get("data") if isinstance(served, dict) else None
                known = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
                owners = [m.get("owned_by") for m in known if m.get("id") == self.model]
                self._dialect = replace(self._dialect, server=server_of(owners))
                status = response.status_code
                self._introduced = status == 501 or (status < 500 and status != 429)

    async def _complete(self, body: dict[str, Any]) -> ChatCompletion:
        """One try. Raises _Failed."""
        await self._turn()
        self._check_caps()
        self.calls += 1
        response = await self._send("POST", "chat/completions", body)
        if not response.is_success:
            raise self._refusal(response)
        try:
            return ChatCompletion.model_validate_json(response.content)
        except ValidationError:
            raise _Failed(f"{self.url} sent no chat completion", again=True) from None

    async def _turn(self) -> None:
        """Waits for the rate limit, and for the end of a pause that the server has asked for."""
        per_minute = self.settings.requests_per_minute
        turn = max(self._next_turn, self._loop.time())
        self._next_turn = turn + (60 / per_minute if per_minute else 0)
        await asyncio.sleep(turn - self._loop.time())

    def _check_caps(self) -> None:
        for name, cap, spent in (
            ("max_calls", self.settings.max_calls, self.calls),
            ("max_tokens", self.settings.max_tokens, self.tokens),
        ):
            if cap and spent >= cap:
                raise _Failed(f"spending cap judge.endpoint.{name}={cap} reached", hopeless=True)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """Within timeout_s from first to last byte. Raises _Failed for what is no response."""
        limit = self.settings.timeout_s
        try:
            async with asyncio.timeout(limit):
                async with self._http.stream(method, path, json=body) as response:
                    return await self._read(response)
        except (TimeoutError, httpx.TimeoutException):
            raise _Failed(f"no answer within judge.endpoint.timeout_s={limit:g}", again=True) from None
        except httpx.HTTPError as error:  # its text may hold headers
            raise _Failed(f"no answer from {self.url} ({type(error).__name__})", again=True) from None

    async def _read(self, response: httpx.Response) -> httpx.Response:
        """With its body, as far as it may be kept in memory. Raises _Failed for more than that."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Failed(f"{self.url} compressed its answer, though asked not to", again=True)
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > LARGEST_REPLY:
                raise _Failed(f"{self.url} sent more than {LARGEST_REPLY >> 20} MiB", again=True)
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return httpx.Response(response.status_code, headers=headers, content=bytes(body))

    def _refusal(self, response: httpx.Response) -> _Failed:
        status = response.status_code
        reason = f"{self.url} answered {status} {httpx.codes.get_reason_phrase(status)}{self._said(response)}"
        if status in (400, 422):
            # Not as the charset of its header says: Python has some that decode no text, and fail.
            return _Failed(reason, complaint=response.content.decode(errors="replace") or reason)
        if status in (401, 402, 404) or response.is_redirect:
            return _Failed(f"{reason}{_ADVICE.get(status, '')}", hopeless=True)
        if wait := retry_after(response.headers.get("retry-after", "")):
            self._next_turn = max(self._next_turn, self._loop.time() + wait)
        return _Failed(reason, again=status in (408, 409, 429) or status >= 500)

    def _said(self, response: httpx.Response) -> str:
        """What a client error is about, in the server's words: not where they may be about the key."""
        if not response.is_client_error or response.status_code in (401, 403):
            return ""
        answer = _json(response)
        error = answer.get("error") if isinstance(answer, dict) else None
        said = " ".join(str(error.get("message", "")).split()) if isinstance(error, dict) else ""
        words = "".join(filter(str.isprintable, said))  # in logs nothing acts on a terminal, and tables hold Unicode
        key = self._http.headers.get("authorization", "").removeprefix("Bearer ")
        return f": {words[:160]}" if words and not (key and key in words) else ""


_ADVICE = {401: f" (check {KEY} or judge.endpoint.key_block)", 404: " (check judge.endpoint.url and judge.model)"}


def retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for, a number or a date; 0 for none, LONGEST_WAIT_S at most."""
    try:
        date = email.utils.parsedate_tz(header)
        seconds = email.utils.mktime_tz(date) - time.time() if date else float(header)
    except (ValueError, OverflowError):
        return 0.0
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 else 0.0


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
