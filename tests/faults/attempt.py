"""One start of a command, and what it says; its processes are ended from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tasks.engines.guard import alive, family
from tests.helpers import REPOSITORY, shell_environment, token_of

FLOW, TERMINATED = "flow", "flow (SIGTERM)"
# Titles of processes below the flow's own.
VICTIMS = {
    "rollout engine": "ray::RolloutWorker",
    "trainer rank": "ray::TrainerWorker",
    "judge engine": "ray::JudgeWorker",
    "Prefect": "prefect.server",
}
STAGE_BEGINS = "Executing task '"
PATIENCE_S = 300.0


def end_by_sigterm() -> None:
    """SIGTERM to this process ends what it has started, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Attempt:
    """One start of the command, with `more` in its environment, and what it has logged."""

    def __init__(self, command: Sequence[str], home: Path, **more: str) -> None:
        more["PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL"] = "DEBUG"  # a line for each stage that begins
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=shell_environment(home, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line.rstrip())
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def wait_for(self, text: str, occurrence: int = 1, start: int = 0) -> bool:
        """Until `text` stands in so many lines, from the line `start` on. False where the process ends before."""
        return self._wait(lambda: sum(text in line for line in self.lines[start:]) >= occurrence, repr(text))

    def wait_for_line(self, number: int) -> bool:
        """Until there are so many lines. False where the process ends before."""
        return self._wait(lambda: len(self.lines) >= number, f"line {number}")

    def _wait(self, there: Callable[[], bool], what: str) -> bool:
        seen, silent_until = 0, time.monotonic() + PATIENCE_S
        with self._more:
            while not there():
                if not self._reader.is_alive():
                    return False
                if len(self.lines) > seen:
                    seen, silent_until = len(self.lines), time.monotonic() + PATIENCE_S
                assert time.monotonic() < silent_until, f"{what} did not come, and nothing else: {self.lines[-3:]}"
                self._more.wait(1)
        return True

    def kill(self, victim: str) -> None:
        """Raises LookupError where there is no such process (yet)."""
        if victim in (FLOW, TERMINATED):
            self._end_flow(self.process.kill if victim == FLOW else self.process.terminate)
            if victim == TERMINATED:
                assert self.process.returncode == 143 and not self.wait_for("*** SIGTERM")
                assert self.wait_for("terminated; the same command goes on")
            return
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if VICTIMS[victim] in " ".join(child.cmdline()):
                    child.kill()
                    return
            except psutil.NoSuchProcess:
                continue
        raise LookupError(victim)

    def _end_flow(self, end: Callable[[], None]) -> None:
        """The flow is ended, its guard ends the rest: within half a minute nothing is left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        tokens = {token for child in children if (token := token_of(child))}
        end()
        self.process.wait(PATIENCE_S)
        gone_by = time.monotonic() + 30
        while left := alive({*children, *(p for token in tokens for p in family(token))}):
            assert time.monotonic() < gone_by, f"30 s after the kill processes of the run remain: {left}"
            time.sleep(0.2)
        assert not [folder for token in tokens for folder in Path("/dev/shm").glob(f"*{token}*")]

    def end(self) -> dict[str, Any]:
        """What the flow prints when it is complete."""
        self.wait()
        assert self.process.returncode == 0, "\n".join(self.lines[-30:])
        return dict(json.loads(next(line for line in reversed(self.lines) if line.startswith("{"))))

    def wait(self) -> int:
        """The exit status."""
        try:
            self.process.wait(10 * PATIENCE_S)
        finally:
            self.process.kill()
        self._reader.join()
        return int(self.process.returncode)
