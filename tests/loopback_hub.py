"""A Hugging Face hub on loopback: repositories with commits, gates and tokens, as huggingface_hub and datasets use it.

Large files lie on another host, as on the hub: a redirect leads there, and it must never see a token. The status of a
missing repository is 401 without a token and 404 with one, of a gated one 401 or 403, and 401 for every wrong token.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
CONTENT = re.compile(r"/content/([0-9a-f]{64})")

Files = dict[str, bytes]


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # on the host of large files, which knows hashes only, the file's own
    headers: Message


@dataclass
class Repository:
    """`commits` by sha, oldest first; main is the last. `gated` is what needs a token that opens it, of "revision" (the
    page of the repository), "tree" (the list of its files) and "file": the hub has changed its mind about the first."""

    commits: dict[str, Files]
    gated: tuple[str, ...] = ()
    private: bool = False


@dataclass
class Hub:
    """`tokens` -> the gated and private repositories that each opens. The next download of a file in `cuts` ends in the
    middle. A hub that is `mute` accepts connections and says nothing for 3 s; a `broken` one always has this status."""

    url: str = ""
    large_url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    tokens: dict[str, set[str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    contents: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # of large files, by SHA-256
    mute: bool = False
    broken: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def add(self, kind: str, name: str, *commits: Files, **access: Any) -> list[str]:
        """A repository of `models` or `datasets`; the shas of its commits."""
        shas = [hashlib.sha1(repr((kind, name, commit)).encode()).hexdigest() for commit in commits]
        self.repositories[kind, name] = Repository(dict(zip(shas, commits, strict=True)), **access)
        for path, data in [item for commit in commits for item in commit.items()]:
            self.contents[hashlib.sha256(data).hexdigest()] = path, data
        return shas

    def asked(self) -> list[str]:
        return [request.path for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self.hub.mute:
            self.hub.stopped.wait(3)
            self.close_connection = True
        elif self.hub.broken:
            self.error(self.hub.broken, "", "")
        elif api := API.fullmatch(path):
            kind, name, what, revision, below = api.groups("")
            self.note(path)
            self.page(kind, name, what or "revision", unquote(revision) or "main", unquote(below))
        elif file := FILE.fullmatch(path):
            self.note(path)
            kind = "datasets" if file[1] else "models"
            self.file(kind, file[2], unquote(file[3]), unquote(file[4]))
        elif (content := CONTENT.fullmatch(path)) and content[1] in self.hub.contents:
            name, data = self.hub.contents[content[1]]
            self.note(name)
            self.send(name, data, {})
        else:  # what clients ask besides, as for a list of agents: none of our business
            self.reply(404, {"error": "not found"})

    do_HEAD = do_GET

    def note(self, path: str) -> None:
        self.hub.requests.append(Request(self.command, unquote(path), self.headers))

    def commit(self, kind: str, name: str, revision: str, what: str) -> tuple[str, Files] | None:
        """The commit that a revision stands for; None after the error was sent."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        opened = name in self.hub.tokens.get(token, ())
        repository = self.hub.repositories.get((kind, name))
        if token and token not in self.hub.tokens:
            self.error(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not opened):
            self.error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif what in repository.gated and not opened:
            self.error(403 if token else 401, "GatedRepo", f"Access to {name} is restricted.")
        else:
            sha = list(repository.commits)[-1] if revision == "main" else revision
            if sha in repository.commits:
                return sha, repository.commits[sha]
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def page(self, kind: str, name: str, what: str, revision: str, below: str) -> None:
        """What a repository is ("revision"), or which files it has in a folder ("tree")."""
        if (found := self.commit(kind, name, revision, what)) is None:
            return None
        sha, files = found
        if what == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self.reply(200, {"id": name, "sha": sha, "private": False, "gated": False, "siblings": siblings})
        inside = [path for path in files if path.startswith(f"{below}/" if below else "")]
        if not inside:
            return self.error(404, "EntryNotFound", f"{below} does not exist", sha)
        folders = sorted({path.rpartition("/")[0] for path in inside} - {"", below})
        entries = [{"type": "directory", "path": path, "oid": sha, "size": 0} for path in folders]
        return self.reply(200, entries + [entry(path, files[path]) for path in inside])

    def file(self, kind: str, name: str, revision: str, path: str) -> None:
        if (found := self.commit(kind, name, revision, "file")) is None:
            return
        sha, files = found
        if path not in files:
            return self.error(404, "EntryNotFound", "Entry not found", sha)
        facts = entry(path, files[path])
        if "lfs" not in facts:
            return self.send(path, files[path], {"X-Repo-Commit": sha, "ETag": f'"{facts["oid"]}"'})
        digest, size = facts["lfs"]["oid"], str(facts["size"])
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": size, "Location": f"{self.hub.large_url}/{digest}"}
        return self.reply(302, b"", {"X-Repo-Commit": sha, **linked})

    def send(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        """A file or, where a Range is asked for, its rest; half of it for one that is to be cut."""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        status, rest = (206, data[start:]) if start else (200, data)
        if start:
            headers |= {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        if self.command == "GET" and name in self.hub.cuts:
            self.hub.cuts.remove(name)
            return self.reply(status, rest[: len(rest) // 2], headers, len(rest))
        return self.reply(status, rest, headers)

    def error(self, status: int, code: str, message: str, sha: str = "") -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": sha}
        self.reply(status, {"error": message}, {key: value for key, value in named.items() if value})

    def reply(self, status: int, body: Any, headers: Mapping[str, str] | None = None, length: int = -1) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Connection", "close")  # so that nobody is answered after the hub has stopped
        for key, value in {"Content-Length": str(len(data) if length < 0 else length), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def entry(path: str, data: bytes) -> dict[str, Any]:
    """A file of a commit's tree, as the hub describes it."""
    facts = {"type": "file", "path": path, "size": len(data)}
    facts["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    digest = hashlib.sha256(data).hexdigest()
    return facts | ({"lfs": {"oid": digest, "size": len(data), "pointerSize": 134}} if path.endswith(LARGE) else {})


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    hub = Hub()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    http.daemon_threads = True
    hub.url = f"http://127.0.0.1:{http.server_port}"
    hub.large_url = f"http://localhost:{http.server_port}/content"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        http.shutdown()
        http.server_close()
        thread.join()
