"""A run's folder is one process's at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sgpo_core.storage.run_dir import RunPaths
from tasks.run import RunInProgress, locked
from tests.helpers import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from sgpo_core.storage.run_dir import RunPaths
from tasks.run import locked
with locked(RunPaths(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_in_progress_is_not_begun_again_until_its_process_is_gone(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "tiny-sgpo-s0")
    command = [sys.executable, "-c", HOLD, str(run.root)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(RunInProgress, match="tiny-sgpo-s0 is in progress in another process"), locked(run):
            pass
        other.kill()
    with locked(run):
        assert run.root.is_dir()
