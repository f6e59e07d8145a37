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
from tests.helpers import REPOSITORY, meanwhile, prefect_page, run_module, shell_environment

# Without carries, so that a policy that forgets them gets some right.
SETTINGS = [
    "eval=chains-carry-0",
    "eval.sets.chains-carry-0.data.count=256",
    "eval.sets.chains-carry-0.k=2",
    "cluster.rollout_actors=1",
]


def evaluated(policy: str, home: Path) -> dict[str, Any]:
    """The flow's result, in a process of its own."""
    done = run_module("flows.evaluation", policy, *SETTINGS, home=home, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def record(home: Path) -> dict[str, Any]:
    [file] = results(home)
    return {name: value for name, value in read_json(file).items() if name != "seconds"}


def generations(home: Path) -> list[dict[str, Any]]:
    rows = [row for part in parts(home) for row in pq.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: (row["number"], row["sample"]))


def results(home: Path) -> list[Path]:
    return list(home.glob("evaluations/*/chains-carry-0-*/result-*.json"))


def parts(home: Path) -> list[Path]:
    return sorted(home.glob("evaluations/*/chains-carry-0-*/generations/*.parquet"))


def test_killed_repeated_forced_and_rescored(policy: str, session_home: Path, tmp_path: Path) -> None:
    def killed_and_resumed() -> dict[str, Any]:
        part = kill_when_generating(policy, tmp_path)
        before = part.read_bytes()
        result = evaluated(policy, tmp_path)
        assert part.read_bytes() == before  # kept, not generated again
        return result

    with meanwhile(killed_and_resumed) as resumed:
        first = benchmark_eval(policy, SETTINGS)
        assert resumed.result()["final_metrics"] == first["final_metrics"]
    kept, made, result = generations(session_home), times(parts(session_home)), times(results(session_home))
    assert len(kept) == 512 and "eval/chains-carry-0/avg_at_k" in first["final_metrics"]
    assert generations(tmp_path) == kept and record(tmp_path) == record(session_home)

    assert benchmark_eval(policy, SETTINGS) == first
    page = prefect_page(first["run_id"])
    assert page.startswith(f"# {policy} on benchmarks\n") and "chains-carry-0    256    2  0." in page
    assert prefect_page(f"{first['weights']}-chains-carry-0-progress") == "100"
    assert (times(parts(session_home)), times(results(session_home))) == (made, result)  # evaluated already

    assert benchmark_eval(policy, SETTINGS, force=True)["final_metrics"] == first["final_metrics"]  # to the last digit
    again = times(parts(session_home))
    assert generations(session_home) == kept and min(again) > max(made)  # how many parts, is a matter of time

    scored, [result] = record(session_home), times(results(session_home))
    assert benchmark_eval(policy, SETTINGS, rescore=True)["final_metrics"] == first["final_metrics"]
    assert times(parts(session_home)) == again and record(session_home) == scored
    assert times(results(session_home)) > [result]  # graded anew, from the same generations


def times(files: list[Path]) -> list[int]:
    """When they were written, ns."""
    return [file.stat().st_mtime_ns for file in files]


def kill_when_generating(policy: str, home: Path) -> Path:
    """Kills the evaluation once its first part is written; returns that part."""
    command = [sys.executable, "-m", "flows.evaluation", policy, *SETTINGS]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=shell_environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        deadline = time.monotonic() + 300
        while not (made := parts(home)):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(running.pid, signal.SIGKILL)
    assert not results(home)
    return made[0]


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
