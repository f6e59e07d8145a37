"""Several processes that share the runs of a sweep: each takes what is neither complete nor in another's hands, on
engines of its own. They need nothing of each other but the runs' folders and locks, and may as well be started by hand,
on several machines with a shared folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prefect import get_client, get_run_logger

from sgpo_core.config.sweep import SweepConfig, SweepRun
from tasks.paths import REPOSITORY, home
from tasks.run import finished_result, run_paths
from tasks.sweeps.runs import Progress

_EVERY_S = 2.0


def run_side_by_side(
    config: SweepConfig, runs: Sequence[SweepRun], preset: str, overrides: Sequence[str], progress: Progress
) -> None:
    """Runs what is missing in `config.parallel` processes and shows how far they are. A run that fails is left over."""
    log = get_run_logger()
    folder = home() / config.experiment / f"processes-{config.tag}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.sweep", preset, *overrides, "parallel=1", "attempts=1", "--runs-only"]
    started = [_start(command, folder / f"{number}.log") for number in range(1, config.parallel + 1)]
    log.info(f"{len(started)} processes share the runs; what they say: {folder}")
    try:
        left = [run for run in runs if not _show_if_done(run, progress, ran=False)]
        while any(process.poll() is None for process, _ in started):
            time.sleep(_EVERY_S)
            left = [run for run in left if not _show_if_done(run, progress, ran=True)]
    finally:
        for process, _ in started:
            process.terminate()
            process.wait()
    for process, output in started:
        if process.returncode:
            log.warning(f"a process ended with status {process.returncode}, see {output}")


def _start(command: Sequence[str], output: Path) -> tuple[subprocess.Popen[bytes], Path]:
    with get_client(sync_client=True) as client:
        server = str(client.api_url)  # one server for all: several on one SQLite file would lock each other out
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "PREFECT_API_URL": server},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return process, output


def _show_if_done(run: SweepRun, progress: Progress, ran: bool) -> bool:
    result = finished_result(run_paths(run.config), getattr(run.config, "iterations", 0))
    if result is not None:
        progress.add(run, result, ran)
    return result is not None
