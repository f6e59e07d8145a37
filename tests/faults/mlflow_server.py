"""An MLflow server on a home's database, which can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from tests.helpers import shell_environment

_STARTS_WITHIN_S = 120.0


class MlflowServer:
    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        stores = [f"--backend-store-uri=sqlite:///{home}/mlflow.db", f"--artifacts-destination={home}/mlartifacts"]
        where = ["--host=127.0.0.1", f"--port={port}", "--workers=1"]
        self._command = [sys.executable, "-m", "mlflow", "server", *stores, *where]
        self._environment = shell_environment(home)

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once it answers."""
        silent = subprocess.DEVNULL
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=silent, stderr=silent, start_new_session=True
        )
        until = time.monotonic() + _STARTS_WITHIN_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < until, "MLflow's server does not start"
            time.sleep(0.5)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        with suppress(OSError), urlopen(f"{self.address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False
