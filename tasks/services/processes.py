"""Processes that outlive the command that started them, and are found again by another one.

A process is known by its pid file, which holds its start time too, since pids are used again. All that it starts
inherits a mark in the environment, so that children who have lost their parent end with it as well, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tasks.paths import REPOSITORY

MARK = "SGPO_SERVICE"
START_TOLERANCE_S = 2.0  # start times are wall-clock times and shift when the clock is corrected
STOP_DEADLINE_S = 20.0
REPORT_S = 3.0  # in which a process may act on the end of its children


@dataclass(frozen=True)
class Record:
    """A pid file. `started`: seconds since the epoch; `url`: what the process serves, or serves for; `login`: whether
    it wants the one that we have made."""

    pid: int
    started: float
    url: str
    login: bool = False

    @staticmethod
    def read(pid_file: Path) -> Record | None:
        try:
            return Record(**json.loads(pid_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def process(self) -> psutil.Process | None:
        """The process, if it is still the one that was started, and alive."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < START_TOLERANCE_S
        except psutil.Error:
            return None
        return process if same and _alive([process]) else None


def launch(
    command: str, url: str, pid_file: Path, log: Path, variables: dict[str, str], login: bool = False
) -> subprocess.Popen[bytes]:
    """Starts `python -m COMMAND` as the leader of its own session, with its output at the end of the log."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    record = Record(child.pid, psutil.Process(child.pid).create_time(), url, login)
    pid_file.write_text(json.dumps(asdict(record)))
    return child


def stop(pid_file: Path, mark: str, *, children_first: bool = False) -> bool:
    """Ends the process of a pid file and all that bear its mark; returns whether there was anything to end.

    `children_first`: the process outlives its children for a moment, in which it can report how they ended.
    """
    record = Record.read(pid_file)
    leader = record.process() if record else None
    family = _family(mark, leader)
    if leader in family:
        descendants = _descendants(leader)
        if children_first and descendants:
            children = _descendants(leader, recursive=False)
            _end(children, signal.SIGTERM, STOP_DEADLINE_S)
            _end(children, signal.SIGKILL, REPORT_S)
            time.sleep(REPORT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGTERM)
        _end([leader, *descendants], 0, STOP_DEADLINE_S)
    _end(family | _family(mark, leader), signal.SIGTERM, 5)
    _end(family | _family(mark, leader), signal.SIGKILL, 5)
    pid_file.unlink(missing_ok=True)
    return bool(family)


def _family(mark: str, leader: psutil.Process | None) -> set[psutil.Process]:
    """The leader, all that bear the mark, and their descendants, save the caller and its parents."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # ended meanwhile, or another user's
            if process == leader or process.environ().get(MARK) == mark:
                found |= {process, *_descendants(process)}
    caller = psutil.Process()
    return found - {caller, *caller.parents()}


def _descendants(process: psutil.Process, recursive: bool = True) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=recursive))
    except psutil.NoSuchProcess:
        return []


def _end(processes: Iterable[psutil.Process], number: int, seconds: float) -> None:
    """Sends the signal (0: none) to those that still run, and gives them time."""
    for process in _alive(processes):
        with contextlib.suppress(psutil.Error):  # compares the start time before it sends
            process.send_signal(number)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and _alive(processes):
        time.sleep(0.1)


def _alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie, for which nobody has waited, does not."""
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive
