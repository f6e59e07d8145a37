"""Actors that die or hang are found and named; here light ones, in the session's Ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest
import ray
from prefect.exceptions import TerminationSignal
from prefect.logging import disable_run_logger

from tasks.engines.actors import remote_actor
from tasks.engines.cluster import kept_actors, outlived
from tasks.engines.faults import EngineLost, Restart, answers, loss
from tasks.engines.placement import Seat
from tasks.workers.vllm_process import ProcessLost


class Worker:
    def pid(self) -> int:
        return os.getpid()

    def after(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def fail(self) -> None:
        raise ValueError("its own fault")


@pytest.fixture
def two(engines: None) -> tuple[Any, ...]:
    kept_actors("ray is up", lambda: ())
    actor = remote_actor(Worker, Seat(), {})
    return actor.remote(), actor.remote()


def asked(actors: tuple[Any, ...], *seconds: float) -> dict[Any, str]:
    calls = [actor.after.remote(s) for actor, s in zip(actors, seconds, strict=True)]
    return {call: f"engine {i}" for i, call in enumerate(calls)}


def test_answers_come_in_the_order_of_the_calls(two: tuple[Any, ...]) -> None:
    assert answers(asked(two, 0.3, 0.0), 60) == [0.3, 0.0]
    assert answers({}, 60) == []


def test_a_signal_ends_a_long_wait(two: tuple[Any, ...]) -> None:
    """Ray's compiled code holds the exception back until its wait is over, or loses it."""

    def end(number: int, frame: Any) -> None:
        raise TerminationSignal(number)

    calls, before, began = asked(two, 120, 120), signal.signal(signal.SIGTERM, end), time.monotonic()
    try:
        Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(TerminationSignal):
            answers(calls, 300)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - began < 60
    for actor in two:
        ray.kill(actor)


def test_one_that_dies_is_named_though_another_waits(two: tuple[Any, ...]) -> None:
    victim = ray.get(two[1].pid.remote())
    calls = asked(two, 60, 60)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(EngineLost, match=r"^engine 1 died"):
        answers(calls, 60)
    assert time.monotonic() - began < 30
    ray.kill(two[0])


def test_a_machine_out_of_memory_is_said_without_a_page_of_advice() -> None:
    """What Ray 2.60 wrote when a machine was out of memory; to provoke it would end other tests' engines."""
    error = ray.exceptions.OutOfMemoryError(
        "Task was killed due to the node running low on memory.\n"
        "Memory on the node (IP: 127.0.0.1, ID: 58281e) was 22.57GB used / 23.54GB limit (0.958918)\n"
        "Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/..."
    )
    said = str(loss("rollout engine 1", error))
    assert said.startswith("rollout engine 1 died (Ray ended it, for the machine was out of memory: 22.57GB of 23.54GB")
    assert "docs.ray.io" not in said and "train.micro_batch_tokens" in said


class Peer(Worker):
    """Fails when its file comes, as a rank does whose peer is gone."""

    def until(self, file: str) -> None:
        while not os.path.exists(file):
            time.sleep(0.01)
        raise RuntimeError("Connection closed by peer")


def test_the_dead_one_is_named_and_not_who_noticed_it(two: tuple[Any, ...], tmp_path: Path) -> None:
    peer, victim = remote_actor(Peer, Seat(), {}).remote(), ray.get(two[1].pid.remote())
    calls = {peer.until.remote(str(tmp_path / "gone")): "rank 0", two[1].after.remote(60): "rank 1"}
    (tmp_path / "gone").touch()
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(EngineLost, match=r"^rank 1 died"):
        answers(calls, 60)


def test_what_counts_as_a_loss() -> None:
    dead = ray.exceptions.RayTaskError("generate", "...", ProcessLost("one of its processes has ended"))
    assert str(loss("rollout engine 0", dead)) == "rollout engine 0 died (one of its processes has ended)"
    assert "died" in str(loss("rollout engine 0", ray.exceptions.OutOfMemoryError("memory")))
    assert loss("rollout engine 0", ray.exceptions.RayTaskError("generate", "...", ValueError("x"))) is None


def test_one_that_hangs_is_named_and_can_be_ended(two: tuple[Any, ...]) -> None:
    victim = ray.get(two[0].pid.remote())
    os.kill(victim, signal.SIGSTOP)
    with pytest.raises(EngineLost, match=r"^engine 0 did not answer within 2 s$"):
        answers(asked(two, 0, 0), 2)
    for actor in two:
        ray.kill(actor)
    psutil.wait_procs([psutil.Process(victim)] if psutil.pid_exists(victim) else [], timeout=30)
    assert not psutil.pid_exists(victim) or psutil.Process(victim).status() == psutil.STATUS_ZOMBIE


def test_an_error_of_its_own_is_no_loss(two: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="its own fault"):
        answers({two[0].fail.remote(): "engine 0"}, 60)


@pytest.mark.parametrize(("losses", "restarts"), [(0, 0), (1, 2), (2, 2)])
def test_work_is_done_again(losses: int, restarts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, ended = [losses], []
    monkeypatch.setattr("tasks.engines.cluster.stop_engines", lambda: ended.append(1))

    def work(before: list[Restart]) -> str:
        assert [restart.what for restart in before] == ["rank 0 died"] * (losses - left[0])
        if left[0]:
            left[0] -= 1
            raise EngineLost("rank 0 died")
        return "done"

    with disable_run_logger():
        assert outlived(restarts, work) == "done"
    assert len(ended) == losses


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.engines.cluster.stop_engines", lambda: None)

    def work(before: list[Restart]) -> None:
        raise EngineLost("rank 0 died")

    with disable_run_logger(), pytest.raises(EngineLost):
        outlived(3, work)
