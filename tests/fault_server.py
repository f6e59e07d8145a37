"""An OpenAI-compatible server on loopback that goes wrong as it is told to: each request takes the next fault."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


def completion(text: str | None, **more: Any) -> Body:
    """A reply of 7 tokens to a prompt of 11."""
    message = {"role": "assistant", "content": text, **more}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}


def echo(body: Body) -> Body:
    return completion(f"reply to {body['messages'][-1]['content']}")


@dataclass(frozen=True)
class Thinker:
    """An answer of a model that thinks before it writes, a word a token, within the limit that the request sets. The
    verdict is `verdict`, the thinking names step 1, as a verdict would, and `where` it goes is the server's way:
    "reasoning" (vLLM), "reasoning_content" (SGLang, DeepSeek), "inline" (no parser), "headless" (the same, and the
    prompt ends in "<think>": DeepSeek-R1), "hidden" (OpenAI: it is counted, and not shown)."""

    where: str = "reasoning"
    words: int = 100  # at least 5
    verdict: str = "2"

    def __call__(self, body: Body) -> Body:
        limit = body.get("max_completion_tokens", body.get("max_tokens", 10**6))
        wants = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
        thought = ["hm"] * (self.words - 5) + ["First", "wrong", "step:", "1", "\n"] if wants else []
        asked = body.get("response_format") or body.get("structured_outputs")
        written = self.verdict.split() if asked else ["Step", "2", "is", "wrong."]
        kept, answer = thought[:limit], written[: max(0, limit - len(thought))]
        reply = completion(" ".join(answer) or None)
        choice, usage = reply["choices"][0], reply["usage"]
        choice["finish_reason"] = "length" if len(kept) + len(answer) < len(thought) + len(written) else "stop"
        usage |= {"completion_tokens": len(kept) + len(answer)}
        if self.where in ("inline", "headless") and kept:
            parts = [
                "<think>" if self.where == "inline" else "",
                *kept,
                "</think>" if len(kept) == len(thought) else "",
            ]
            choice["message"]["content"] = " ".join([*parts, *answer])
        elif self.where == "hidden":
            usage |= {"completion_tokens_details": {"reasoning_tokens": len(kept)}}
        elif kept:
            choice["message"][self.where] = " ".join(kept)
        return reply


@dataclass
class FaultServer:
    """`faults` are used up one by one, then every request gets `answer`. What was asked is in `bodies`."""

    faults: list[Callable[[Handler], None]] = field(default_factory=list)
    answer: Callable[[Body], Body] = echo
    key: str = ""
    owner: str = "somebody"
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0  # before every answer
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": "judge", "owned_by": self.faulty.owner}]})

    def do_POST(self) -> None:
        server = self.faulty
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            fault = server.faults.pop(0) if server.faults else None
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            server.stopped.wait(server.seconds)
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                self.reply(401, {"error": {"message": f"wrong key: {self.headers.get('Authorization')}"}})
            elif fault:
                fault(self)
            else:
                self.reply(200, server.answer(body))
        except OSError:  # the client has given up
            self.close_connection = True
        finally:
            with server.lock:
                server.at_once -= 1

    def reply(self, status: int, body: Body | bytes, length: int | None = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", headers.pop("Content_Type", "application/json"))
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def status(code: int, message: str = "", **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(code, {"error": {"message": message}}, **headers)


def body(data: bytes) -> Callable[[Handler], None]:
    """200, and this."""
    return lambda handler: handler.reply(200, data)


def refuses(*names: str, complaint: str = "unknown field {}") -> Callable[[Handler], None]:
    """400 for the first of the names that the request has."""

    def fault(handler: Handler) -> None:
        asked = handler.faulty.bodies[-1]
        found = [name for name in names if name in asked]
        if found:
            handler.reply(400, {"error": {"message": complaint.format(found[0])}})
        else:
            handler.reply(200, handler.faulty.answer(asked))

    return fault


def half_a_body(handler: Handler) -> None:
    """Of the length that was promised, half comes."""
    data = json.dumps(completion("never read")).encode()
    handler.reply(200, data[: len(data) // 2], length=len(data))
    handler.close_connection = True


def nothing(handler: Handler) -> None:
    handler.close_connection = True


def after_a_minute(handler: Handler) -> None:
    handler.faulty.stopped.wait(60)
    handler.reply(200, completion("too late"))


def trickle(handler: Handler) -> None:
    """A byte now and then, so that no single read takes long."""
    handler.reply(200, b"", length=10_000)
    while not handler.faulty.stopped.wait(0.05):
        handler.wfile.write(b" ")


def without_end(handler: Handler) -> None:
    """As much as the client will take."""
    handler.reply(200, b"", length=1 << 40)
    while not handler.faulty.stopped.is_set():
        handler.wfile.write(b" " * (1 << 16))


def bomb(handler: Handler) -> None:
    """100 KB that unpack to 100 MB."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(100):
            file.write(b" " * 10**6)
    handler.reply(200, packed.getvalue(), Content_Encoding="gzip")


@contextmanager
def fault_server(**settings: Any) -> Iterator[FaultServer]:
    server = FaultServer(**settings)
    handler = type("BoundHandler", (Handler,), {"faulty": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        http.shutdown()
        http.server_close()
        thread.join()
