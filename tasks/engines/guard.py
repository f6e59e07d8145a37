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
import tempfile
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from tasks.paths import REPOSITORY

TOKEN = "SGPO_RUN_TOKEN"
_owner: int | None = None


def start_guard() -> str:
    """Marks this process's children and starts the guard, once a process. Returns the token."""
    global _owner
    if _owner != os.getpid():
        _owner = os.getpid()
        token = uuid.uuid4().hex
        subprocess.Popen(
            [sys.executable, "-m", "tasks.engines.guard", str(os.getpid()), token],
            start_new_session=True,  # a signal to the run's process group does not end the guard
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
        os.environ[TOKEN] = token  # after the guard has started: it must not bear the token itself
        # Ray's agents and workers set a title. Without this it overwrites the environment that can be read from
        # outside, and an agent whose parent died first could not be told from anybody's.
        os.environ["SPT_NOENV"] = "1"
    return os.environ[TOKEN]


def sync_folder(base: str) -> Path:
    """The folder for weights of this process's runs; the guard removes it."""
    folder = Path(base) / f"sgpo-{start_guard()}"
    folder.mkdir(parents=True, exist_ok=True)
    with _folders(os.environ[TOKEN]).open("a") as listed:
        listed.write(f"{folder.absolute()}\n")
    return folder


def _folders(token: str) -> Path:
    """Where a run lists the folders that its guard has to remove."""
    return Path(tempfile.gettempdir()) / f"sgpo-{token}.folders"


def watch(process: int, token: str) -> None:
    """Waits until the process is gone, then ends what it left. Only processes of the run are touched."""
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
    listed = _folders(token)
    if listed.exists():
        for folder in listed.read_text().splitlines():
            shutil.rmtree(folder, ignore_errors=True)
        listed.unlink()


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
    watch(int(sys.argv[1]), sys.argv[2])
