"""Engines that are killed in the middle of a run are started anew inside of its flow, and its end is that of a run to
which nothing happened."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from prefect.artifacts import Artifact

from tasks.engines import cluster
from tests.helpers import SMALL, differences, start_from


def pid_of(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda worker: os.getpid())))


def when_there(file: Path) -> None:
    deadline = time.monotonic() + 240
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_when_there(file: Path, of_engines: Callable[[cluster.Engines], Any], killed: list[int]) -> None:
    when_there(file)
    (engines,) = cluster._live.values()
    killed.append(pid_of(of_engines(engines)))
    os.kill(killed[-1], signal.SIGKILL)


def test_a_run_outlives_its_engines(policy: str) -> None:
    from flows.online import online

    overrides = [*SMALL, *start_from(policy), "algorithm.credit.scope=all_incorrect", "seed=9", "iterations=3"]
    unharmed = online("tiny", [*overrides, "experiment=unharmed"])
    harmed = Path(unharmed["run_dir"]).parents[1] / "harmed" / unharmed["run_id"]
    killed: list[int] = []

    def attack() -> None:
        kill_when_there(harmed / "iterations/000001/metrics.json", lambda engines: engines.rollouts[0], killed)
        kill_when_there(harmed / "iterations/000002/metrics.json", lambda engines: engines.trainers[0], killed)

    attacker = threading.Thread(target=attack)
    attacker.start()
    result = online("tiny", [*overrides, "experiment=harmed"])
    attacker.join()
    assert len(killed) == 2 and Path(result["run_dir"]) == harmed

    assert differences(unharmed, result) == []
    page = Artifact.get(result["run_id"])
    assert page is not None
    lost = re.findall(r"\| \S+ \S+ \| (.*) died \(.*\) \| [1-9]\d* \|", str(page.data))
    assert lost == ["rollout engine 0", "trainer rank 0"]
