"""A Hugging Face hub on loopback: repositories with commits, gates and tokens, as huggingface_hub and datasets use it.

Large files lie on another host, as on the hub: a redirect leads there, and it must never see a token. The status of a
missing repository is 401 without a token and 404 with one, of a gated one 401 or 403, and 401 for every wrong token.

A token may write to the repositories that it opens. Files come in commits; large ones go to the other host before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".bin", ".parquet")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
WRITE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit)/main")
BATCH = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
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

    def files(self, kind: str, name: str) -> Files:
        """Those of the newest commit."""
        return list(self.repositories[kind, name].commits.values())[-1]

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

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self.reply(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.note(path)
            self.create(json.loads(body))
        elif write := WRITE.fullmatch(path):
            kind, name, what = write.groups()
            self.note(path)
            if self.may_write(name) and what == "preupload":
                self.preupload(kind, name, json.loads(body))
            elif what == "commit" and self.may_write(name):
                self.receive(kind, name, [json.loads(line) for line in body.splitlines()])
        elif batch := BATCH.fullmatch(path):
            self.note(path)
            if self.may_write(batch[2]):
                self.reply(200, {"objects": [self.wanted(one) for one in json.loads(body)["objects"]]})
        else:
            self.reply(404, {"error": "not found"})

    def do_PUT(self) -> None:
        """A large file, on its own host."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.note(urlsplit(self.path).path)
        self.hub.contents[hashlib.sha256(data).hexdigest()] = "", data
        self.reply(200, b"")

    def may_write(self, name: str) -> bool:
        """Sends the error where not."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            self.error(401, "", "Invalid credentials in Authorization header")
        elif name not in self.hub.tokens[token]:
            self.error(403, "", "Forbidden: you don't have the right to write there")
        return name in self.hub.tokens.get(token, ())

    def create(self, asked: dict[str, Any]) -> None:
        kind, name = f"{asked.get('type', 'model')}s", f"{asked['organization']}/{asked['name']}"
        if not self.may_write(name):
            return
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return self.reply(409, {"error": "You already created this repo", "url": url})
        self.hub.add(kind, name, {}, private=asked.get("visibility") == "private")
        self.reply(200, {"url": url})

    def preupload(self, kind: str, name: str, asked: dict[str, Any]) -> None:
        """How each file is to come, and the hash of the one that is there."""
        there, answer = self.hub.files(kind, name), []
        for path in [file["path"] for file in asked["files"]]:
            facts = entry(path, there[path]) if path in there else {}
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = facts["lfs"]["oid"] if "lfs" in facts else facts.get("oid")
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply(200, {"files": answer})

    def wanted(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Where a large file is to be sent; nowhere, if it is there."""
        if asked["oid"] in self.hub.contents:
            return asked
        return {**asked, "actions": {"upload": {"href": f"{self.hub.large_url}/{asked['oid']}"}}}

    def receive(self, kind: str, name: str, lines: list[dict[str, Any]]) -> None:
        """A commit: the files of the one before, and what comes."""
        files = dict(self.hub.files(kind, name))
        for key, value in [(line["key"], line["value"]) for line in lines]:
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "deletedFile":
                del files[value["path"]]
            elif key == "lfsFile":
                files[value["path"]] = self.hub.contents[value["oid"]][1]
                self.hub.contents[value["oid"]] = value["path"], files[value["path"]]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.hub.repositories[kind, name].commits[sha] = files
        self.reply(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

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
            private = self.hub.repositories[kind, name].private
            return self.reply(200, {"id": name, "sha": sha, "private": private, "gated": False, "siblings": siblings})
        inside = [path for path in files if path.startswith(f"{below}/" if below else "")]
        if below and not inside:
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


def point_to(hub: Hub, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Has huggingface_hub, which has read its environment when it was imported, use this hub, without a token and with
    an empty cache in the folder."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "AGENT_HARNESSES_PATH": str(folder / "agents.json"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,  # large files come as plain ones
    }
    for name, value in values.items():
        patch.setattr(constants, name, value)


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
