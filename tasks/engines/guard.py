"""After a kill -9 nothing of a run stays behind.

A run marks its environment with a token, which all processes that it starts inherit: Ray's daemons and actors, an
ephemeral Prefect server. The guard is one small process that outlives the run's, ends whatever still bears the token,
and removes the weights that were on their way to the engines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

from tasks.paths import REPOSITORY

TOKEN = "SGPO_RUN_TOKEN"
_owner: int | None = None
_guard: subprocess.Popen[str] | None = None


def start_guard() -> str:
    """Marks this process's children and starts the guard, once a process. Returns the token."""
    global _owner, _guard
    if _owner != os.getpid():
        _owner = os.getpid()
        token = uuid.uuid4().hex
        _guard = subprocess.Popen(
            [sys.executable, "-m", "tasks.engines.guard"],
            start_new_session=True,  # a signal to the run's process group does not end the guard
            stdin=subprocess.PIPE,  # what it has to know is nothing that other users of the machine may see, or say
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            text=True,
        )
        _tell(f"{token} {_owner}")
        os.environ[TOKEN] = token  # after the guard has started: it must not bear the token itself
        # Ray's agents and workers set a title. Without this it overwrites the environment that can be read from
        # outside, and an agent whose parent died first could not be told from anybody's.
        os.environ["SPT_NOENV"] = "1"
    return os.environ[TOKEN]


def sync_folder(base: str) -> Path:
    """The folder for weights of this process's runs, for its user alone; the guard removes it."""
    folder = (Path(base) / f"sgpo-{start_guard()}").absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _tell(str(folder))
    return folder


def _tell(line: str) -> None:
    """The guard's pipe: first the token with this process's id, then folders. It stays open as long as this process
    lives."""
    assert _guard is not None, "started before"
    assert _guard.stdin is not None, "it has a pipe"
    with suppress(BrokenPipeError):  # somebody has ended the guard
        print(line, file=_guard.stdin, flush=True)


def watch(said: TextIO) -> None:
    """Waits until the process that started this one is gone, then ends what it left. Only processes and folders that
    bear its token are touched."""
    # Its id is told: it may be gone already, and this process be somebody else's child.
    token, _, told = said.readline().strip().partition(" ")
    if not told:
        return  # it was gone before it said anything
    process = int(told)
    folders: list[Path] = []
    threading.Thread(target=lambda: folders.extend(Path(line.strip()) for line in said), daemon=True).start()
    known: set[psutil.Process] = set()
    while os.getppid() == process:
        with suppress(psutil.NoSuchProcess):
            known = set(psutil.Process(process).children(recursive=True))
        time.sleep(0.5)
    known.discard(psutil.Process())
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 3:  # a daemon may still start another one
        left = alive(known | family(token))
        known |= left
        if left:
            quiet_since = time.monotonic()
        for p in left:
            with suppress(psutil.NoSuchProcess):
                p.kill()
        time.sleep(0.3)
    for folder in folders:
        if folder.name == f"sgpo-{token}":
            shutil.rmtree(folder, ignore_errors=True)


def family(token: str) -> set[psutil.Process]:
    """All processes whose environment has the token, and their descendants."""
    found: set[psutil.Process] = set()
    for p in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if p.environ().get(TOKEN) == token:
                found |= {p, *p.children(recursive=True)}
    return found


def alive(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Those that still run (not another process that got the same id, and no zombies)."""
    running = set()
    for p in processes:
        with suppress(psutil.NoSuchProcess):
            if p.is_running() and p.status() != psutil.STATUS_ZOMBIE:
                running.add(p)
    return running


if __name__ == "__main__":
    watch(sys.stdin)
