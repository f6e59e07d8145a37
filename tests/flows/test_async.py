"""One-step-off generation on real engines: which policy samples what, and that nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import psutil
import pytest

from tasks.engines import cluster
from tasks.run import Run
from tasks.stage import Metrics
from tests.flows.test_recovery import kill_when_there, pid_of, when_there
from tests.helpers import SMALL, columns, differences, meanwhile, start_from

AHEAD = ["async_level=1", "algorithm.credit.scope=all_incorrect", "seed=4", "train.mismatch_alarm=1e-9"]


def run(policy: str, *overrides: str) -> Path:
    from flows.online import online

    return Path(online("tiny", [*SMALL, *start_from(policy), *AHEAD, *overrides])["run_dir"])


def table(folder: Path, iteration: int) -> Path:
    return folder / f"iterations/{iteration:06d}/rollouts.parquet"


def metrics(folder: Path, iteration: int) -> dict[str, float]:
    return dict(json.loads((folder / f"iterations/{iteration:06d}/metrics.json").read_text())["metrics"])


def assert_same_end(folder: Path, other: Path) -> None:
    assert differences(*(json.loads((run / "result.json").read_text()) for run in (folder, other))) == []


@pytest.fixture(scope="module")
def folder(policy: str) -> Path:
    return run(policy)


def test_responses_are_one_iteration_old_from_the_second_on(folder: Path) -> None:
    for iteration, version in ((1, 0), (2, 0), (3, 1), (4, 2)):
        assert set(columns(table(folder, iteration))["policy_version"]) == {version}
        recorded = metrics(folder, iteration)
        assert recorded["rollout/staleness"] == iteration - 1 - version
        # A policy that has moved is no fault of the engines: with this limit every difference would be one.
        assert recorded.get("policy/mismatch_alarm") == (1.0 if iteration == 1 else None)
    assert metrics(folder, 3)["policy/sampler_logprob_diff"] > 10 * metrics(folder, 1)["policy/sampler_logprob_diff"]


def test_generation_of_the_next_iteration_is_timed(folder: Path) -> None:
    for iteration in (1, 2, 3):
        found = metrics(folder, iteration)
        assert found["speed/generated_tokens_s"] > 0
        assert found["time/generate_ahead_s"] > 0.01 and found["time/wait_ahead_s"] >= 0
    assert "time/generate_ahead_s" not in metrics(folder, 4), "there is nothing to generate ahead any more"


def test_engines_that_die_change_nothing(policy: str, folder: Path) -> None:
    """An engine is killed while it generates ahead, a rank later."""
    harmed, (engines,) = folder.parents[1] / "harmed" / folder.name, cluster._live.values()
    engine, killed = pid_of(engines.rollouts[1]), list[int]()

    def attack() -> None:
        when_there(table(harmed, 1))
        os.kill(engine, signal.SIGKILL)
        kill_when_there(table(harmed, 4), lambda engines: engines.trainers[0], killed)

    with meanwhile(attack) as attacker:
        assert run(policy, "experiment=harmed") == harmed
        attacker.result()
    assert_same_end(folder, harmed)


def test_a_run_goes_on_with_the_responses_that_were_sampled_ahead(policy: str, folder: Path) -> None:
    """As after a kill -9 in iteration 3, whose responses were there when checkpoint 2 was written."""
    cut = folder.parents[1] / "cut" / folder.name
    shutil.copytree(folder, cut)
    shutil.rmtree(cut / "checkpoints/000004")
    shutil.rmtree(cut / "iterations/000004")
    (cut / "iterations/000003/metrics.json").unlink()
    (cut / "result.json").unlink()
    assert run(policy, "experiment=cut") == cut
    assert_same_end(folder, cut)


@pytest.mark.parametrize("end", ["an error in a stage", "Ctrl-C while it waits for the generation"])
def test_what_is_under_way_ends_with_the_run(
    policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    from flows import online as flow

    experiment = "failing" if end.startswith("an error") else "interrupted"
    run(policy, f"experiment=before-{experiment}")  # engines that are up
    (engines,) = cluster._live.values()
    stopped = [psutil.Process(pid_of(engine)) for engine in engines.rollouts]
    grade = flow.grade

    def then_stop_engines(run: Run, iteration: int) -> Metrics:
        metrics = grade(run, iteration)
        for engine in stopped:
            engine.suspend()  # what is generated ahead never ends
        return metrics

    def last_stage(run: Run, iteration: int) -> Metrics:
        if experiment == "failing":
            raise ArithmeticError("on purpose")
        threading.Timer(2.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        return {}

    monkeypatch.setattr(flow, "grade", then_stop_engines)
    monkeypatch.setattr(flow, "update", last_stage)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    with pytest.raises(ArithmeticError if experiment == "failing" else KeyboardInterrupt):
        run(policy, f"experiment={experiment}")
    signal.signal(signal.SIGINT, handler)
    assert psutil.wait_procs(stopped, timeout=30)[1] == []
    assert not [record for record in caplog.records if "EngineLost" in record.getMessage()]
    (iterations,) = (Path(os.environ["SGPO_HOME"]) / experiment).glob("*/iterations")
    assert not (iterations / "000002/rollouts.parquet").exists()
