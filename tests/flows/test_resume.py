"""kill -9 of an offline run, the same command again: the result is that of the run that was never killed, bit for bit.
(Of online runs: tests/faults.)"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from tasks.engines.guard import alive, family
from tests.helpers import REPOSITORY, SMALL, meanwhile, recorded, run_module, shell_environment, start_from, token_of


def test_killed_offline_run_ends_as_the_one_never_killed(policy: str, tmp_path: Path) -> None:
    overrides = [setting for setting in SMALL[1:] if not setting.startswith("checkpoint")] + start_from(policy)
    overrides += ["data.count=16", "epochs=2", "checkpoint.every=3", "cluster.rollout_actors=1"]
    overrides += ["algorithm.credit.scope=all_incorrect"]
    home = tmp_path / "killed"
    with meanwhile(lambda: result_of(overrides, tmp_path / "whole")) as whole:
        # In the second epoch's first iteration, after the checkpoint of the third. (While responses are made: see
        # `make faults`.)
        kill_when_there(overrides, home, "iterations/000005/rollouts.parquet")
        result, log = result_of(overrides, home)
        unkilled, killed = Path(whole.result()[0]["run_dir"]), Path(result["run_dir"])
    assert "resuming after iteration 3" in log

    for iteration in range(1, 9):  # 16 groups, 4 an iteration, twice
        name = f"iterations/{iteration:06d}"
        assert pq.read_table(killed / name / "rollouts.parquet").equals(
            pq.read_table(unkilled / name / "rollouts.parquet")
        )
        assert recorded(killed / name) == recorded(unkilled / name)
    assert (killed / "policy/model.safetensors").read_bytes() == (unkilled / "policy/model.safetensors").read_bytes()
    names = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole/responses").rglob("*.arrow"))
    assert names == sorted(p.relative_to(home) for p in (home / "responses").rglob("*.arrow"))
    assert all((home / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def result_of(overrides: list[str], home: Path) -> tuple[dict[str, Any], str]:
    """What a run prints at its end, and its log."""
    done = run_module("flows.offline", "tiny", *overrides, home=home)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def kill_when_there(overrides: list[str], home: Path, file: str) -> None:
    """Starts the run, kills it with SIGKILL as soon as `file` exists, and waits until nothing of it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.offline", "tiny", *overrides],
        cwd=REPOSITORY,
        env=shell_environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 180
    while not list(home.glob(f"offline/*/{file}")):
        assert process.poll() is None and time.monotonic() < deadline, (
            "the run ended, or hangs, before it could be killed"
        )
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    tokens = {token for c in children if (token := token_of(c))}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(tokens) == 1 and children
    gone_by = time.monotonic() + 30
    while left := alive({*children, *family(*tokens)}):
        assert time.monotonic() < gone_by, f"30 s after the kill processes of the run remain: {left}"
        time.sleep(0.2)
