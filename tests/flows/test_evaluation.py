"""The evaluation of a policy as a user runs it: killed and resumed, repeated, forced, graded anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prefect.client.schemas import State
from prefect.logging import disable_run_logger

from flows.evaluation import benchmark_eval
from sgpo_core.config.base import ConfigError
from sgpo_core.storage.atomic import read_json
from tests.helpers import REPOSITORY, meanwhile, run_module, shell_environment

# Without carries, so that a policy that forgets them gets some right.
SETTINGS = [
    "eval=chains-carry-0",
    "eval.sets.chains-carry-0.data.count=256",
    "eval.sets.chains-carry-0.k=2",
    "cluster.rollout_actors=1",
]


def evaluated(policy: str, home: Path, *more: str) -> tuple[dict[str, Any], str]:
    """The flow's result and its log."""
    done = run_module("flows.evaluation", policy, *SETTINGS, *more, home=home, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def record(home: Path) -> dict[str, Any]:
    [file] = home.glob("evaluations/*/chains-*/result-*.json")
    return {name: value for name, value in read_json(file).items() if name != "seconds"}


def generations(home: Path) -> list[dict[str, Any]]:
    parts = sorted(home.glob("evaluations/*/chains-*/generations/*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: (row["number"], row["sample"]))


def test_killed_repeated_forced_and_rescored(policy: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with meanwhile(lambda: evaluated(policy, whole)) as unkilled:
        part = kill_when_generating(policy, killed)
        before = part.read_bytes()
        resumed, _ = evaluated(policy, killed)
        assert part.read_bytes() == before  # kept, not generated again
        first, _ = unkilled.result()
    assert len(generations(whole)) == 512 and "eval/chains-carry-0/avg_at_k" in first["final_metrics"]
    assert generations(killed) == generations(whole)
    assert record(killed) == record(whole)
    assert resumed["final_metrics"] == first["final_metrics"]

    again, log = evaluated(policy, whole)
    assert "evaluated already" in log and "generate chains" not in log
    assert again == first

    kept, [file] = generations(whole), list(whole.glob("evaluations/*/chains-*/generations/000000.parquet"))
    made = file.stat().st_mtime
    forced, log = evaluated(policy, whole, "--force")
    assert "generate chains" in log and file.stat().st_mtime > made
    assert generations(whole) == kept and forced["final_metrics"] == first["final_metrics"]  # to the last digit

    rescored, log = evaluated(policy, whole, "--rescore")
    assert "grade chains" in log and "generate chains" not in log
    assert rescored["final_metrics"] == first["final_metrics"]


def kill_when_generating(policy: str, home: Path) -> Path:
    """Kills the evaluation once its first part is written; returns that part."""
    command = [sys.executable, "-m", "flows.evaluation", policy, *SETTINGS]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=shell_environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        deadline = time.monotonic() + 300
        while not (parts := list(home.glob("evaluations/*/chains-*/generations/0*.parquet"))):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(running.pid, signal.SIGKILL)
    assert not list(home.glob("evaluations/*/chains-*/result-*.json"))
    return parts[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such/policy"], "no folder with config.json"),
        (["POLICY", "eval=nine", "eval.sets.aime24.k=0"], "eval.sets.aime24.k"),
        (["POLICY", "--rescore"], "no complete generations"),
        (["POLICY", "eval.sets.chains.max_tokens=5000"], "max_position_embeddings"),
    ],
)
def test_what_cannot_work_stops_before_anything_starts(policy: str, arguments: list[str], said: str) -> None:
    name, *rest = arguments
    overrides = [argument for argument in rest if argument != "--rescore"]
    with disable_run_logger():
        state = benchmark_eval.fn(policy if name == "POLICY" else name, overrides, rescore="--rescore" in rest)
    assert isinstance(state, State) and state.is_failed() and said in (state.message or "")
    assert "\n" not in state.message and isinstance(state.data, ConfigError)


def test_the_command_says_so_in_its_exit_status(tmp_path: Path) -> None:
    done = run_module("flows.evaluation", "/no/such/policy", home=tmp_path)
    assert done.returncode == 2 and "no folder with config.json" in done.stderr, done.stderr[-2000:]


def test_help_and_settings() -> None:
    done = run_module("flows.evaluation", "--help", home=Path("/nonexistent"))
    assert done.returncode == 0 and "models:/NAME@ALIAS" in done.stdout and "alarm.level" in done.stdout
