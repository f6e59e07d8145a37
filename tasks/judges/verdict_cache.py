"""Verdicts that were given once, for all runs: a judge that is asked the same again costs nothing, and says the same.
What a verdict took when it was given is said each time, so that a run's tokens depend neither on runs before it nor on
whether it was interrupted.

One SQLite file that several processes write at once. What is in it stays: of two runs that judge the same response at
the same time the first to write decides, and both go on with its verdict.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from sgpo_core.config.base import ConfigError, fingerprint
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.judges.base import Item, Judge
from sgpo_core.judges.control_tokens import NO_CONTROLS, ControlTokens
from sgpo_core.judges.prompts import PARSER
from sgpo_core.judges.sanitize import SANITIZER
from sgpo_core.types import Judgment, Verdict, VerdictStatus

VERSION = 1
_APPLICATION = 0x5347504F  # "SGPO": by this a file of ours is known
_BUSY_S = 30.0
_AT_ONCE = 1000  # keys in one question
_TABLE = """CREATE TABLE verdicts (
    key BLOB PRIMARY KEY, status TEXT NOT NULL, first_error_step INTEGER, reason TEXT NOT NULL,
    votes TEXT NOT NULL, agreement REAL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
) WITHOUT ROWID"""

log = logging.getLogger("sgpo.cache")


def judge_identity(settings: JudgeSettings, model: str, controls: ControlTokens = NO_CONTROLS) -> str:
    """All that a judge's verdict on an item depends on. `model` names its weights (`JudgeKind.model`): where they can
    change under their name, it holds a hash of them, or the server's address. `controls`, the control tokens of its
    tokenizer, are rewritten in what it is asked."""
    said = settings.model_dump(
        mode="json", include={"name", "prompt", "reference", "votes", "temperature", "seed", "critique_tokens"}
    )
    if settings.thinks is not None:
        said |= settings.model_dump(mode="json", include={"thinks", "thinking_tokens"})
    said |= settings.endpoint.model_dump(mode="json", include={"reasoning_effort", "extra_body"}, exclude_defaults=True)
    return json.dumps([said, model, PARSER, SANITIZER, fingerprint(controls.tokens)], sort_keys=True)


def verdict_key(item: Item, identity: str) -> bytes:
    """SHA-256 of all that a verdict depends on: the judge, the problem as shown to it, the steps as they were cut."""
    shown = [identity, item.problem.prompt, item.problem.reference, [step.text for step in item.steps]]
    return hashlib.sha256(json.dumps(shown).encode()).digest()


class VerdictCache:
    """Judgments by key, in the file `path`, made when missing. May be used from several threads and processes.

    A file that is broken, or none of ours, is set aside with a warning. A cache that fails later on (full disk, a lock
    held for too long) warns and knows nothing: it never ends a run. Raises ConfigError when there can be no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock, self._inode = threading.Lock(), 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise ConfigError(
                f"the verdict cache {path} can't be opened ({error}): free it, or go without with judge.cache=false"
            ) from None

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Judgment]:
        """Those that are known."""
        with self._lock, self._surviving():
            return dict(self._select(keys))
        return {}

    def put(self, judgments: Mapping[bytes, Judgment]) -> dict[bytes, Judgment]:
        """Writes what is not there yet; returns what is there now."""
        rows = [(key, *_row(judgment)) for key, judgment in judgments.items()]
        with self._lock, self._surviving():
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            return dict(self._select(judgments))
        return {}

    def _select(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Judgment]]:
        rest = iter(keys)
        while some := list(islice(rest, _AT_ONCE)):
            marks = ",".join("?" * len(some))
            columns = "key, status, first_error_step, reason, votes, agreement, prompt_tokens, completion_tokens"
            for key, *row in self._connection.execute(f"SELECT {columns} FROM verdicts WHERE key IN ({marks})", some):
                yield key, _judgment(*row)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            log.warning("%s: %s; judging without it this time", self.path, error)
            if type(error) is sqlite3.DatabaseError or isinstance(error, ValueError):  # broken pages, broken rows
                with suppress(OSError, sqlite3.Error):
                    self._connection.close()
                    self._open(broken=str(error))

    def _open(self, broken: str = "") -> None:
        """Connects; a file that can't be used (`broken` says why, where that is known) gives way to a new one. One
        process at a time, so that none moves away the new file of another."""
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if broken and self.path.exists() and self.path.stat().st_ino == self._inode:
                self._set_aside(broken)
            try:
                self._connection = _connect(self.path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._set_aside(str(error))
                self._connection = _connect(self.path)
            self._inode = self.path.stat().st_ino

    def _set_aside(self, why: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.aside-{time.time_ns()}")
        log.warning("%s: %s; it is %s now, and a new one begins", self.path, why, aside.name)
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")


def _connect(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.DatabaseError for a file that is not ours, before anything is written to it."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    try:
        [mark] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
            connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer at the same time
            connection.executescript(
                f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION};"
                "COMMIT"
            )
        elif (mark, version) != (_APPLICATION, VERSION):
            raise sqlite3.DatabaseError(f"no verdict cache of version {VERSION}")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power failure may cost the last verdicts, not the file
    except BaseException:
        connection.close()
        raise
    return connection


def _row(judgment: Judgment) -> tuple[str, int | None, str, str, float | None, int, int]:
    verdict = judgment.verdict
    votes = json.dumps([[vote.status, vote.first_error_step, vote.reason] for vote in judgment.votes])
    tokens = judgment.prompt_tokens, judgment.completion_tokens
    reason = verdict.reason.encode(errors="replace").decode()  # of a model: it may hold what SQLite can't
    return verdict.status.value, verdict.first_error_step, reason, votes, judgment.agreement, *tokens


def _judgment(
    status: str, first_error_step: int | None, reason: str, votes: str, share: float | None, read: int, written: int
) -> Judgment:
    return Judgment(
        Verdict(first_error_step, VerdictStatus(status), reason),
        tuple(Verdict(step, VerdictStatus(status), reason) for status, step, reason in json.loads(votes)),
        share,
        read,
        written,
        cached=True,
    )


@dataclass(frozen=True, slots=True)
class CachedJudge:
    """Another judge, asked only what the cache does not know, and each thing once. Judgments that were not asked for
    are `cached`; transient ones are not kept."""

    judge: Judge
    cache: VerdictCache
    identity: str  # see judge_identity

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        keys = [verdict_key(item, self.identity) for item in items]
        known = self.cache.get(dict.fromkeys(keys))
        missing = {k: item for k, item in zip(keys, items, strict=True) if k not in known}
        asked = dict(zip(missing, self.judge([*missing.values()]) if missing else [], strict=True))
        stands = self.cache.put({k: judgment for k, judgment in asked.items() if not judgment.transient})
        result = []
        for k in keys:
            if judgment := asked.pop(k, None):
                result.append(_as_it_stands(judgment, stands.get(k)))
                known[k] = replace(result[-1], cached=not result[-1].transient)
            else:
                result.append(known[k])
        return result


def _as_it_stands(given: Judgment, first: Judgment | None) -> Judgment:
    """What was given, and what it took, with the verdict of whoever wrote first."""
    return replace(given, verdict=first.verdict, votes=first.votes, agreement=first.agreement) if first else given
