"""MLflow: each point once, whatever crashes in between; nothing lost while the server is away."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from prefect.exceptions import TerminationSignal

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import DataSettings
from sgpo_core.config.run import load_run
from tasks.paths import home
from tasks.tracking import tracker as tracking
from tasks.tracking.database import make_database
from tasks.tracking.parameters import as_parameters
from tasks.tracking.problem_sets import digest, log_problem_sets
from tasks.tracking.server import check_reachable
from tasks.tracking.system_metrics import system_metrics
from tasks.tracking.tracker import Tracker, git_commit
from tests.helpers import REPOSITORY


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    return open_tracker(tmp_path)


def open_tracker(folder: Path) -> Tracker:
    run = folder / "run"
    return Tracker.open("test", "run-1", run, tracking.this_attempt(run), {"algorithm": "sgpo"}, {"seed": 1})


def test_problem_sets_are_inputs_of_the_run_once(tracker: Tracker) -> None:
    def described() -> list[tuple[str, ...]]:
        inputs = tracker.client.get_run(tracker.run_id).inputs.dataset_inputs
        found = [(i.tags[0].value, i.dataset) for i in inputs]
        return sorted((purpose, d.name, d.digest, d.source_type, d.profile) for purpose, d in found)

    hub = DataSettings(source="openai/gsm8k", subset="main", revision="abc")
    train, test = (
        datasets.Dataset.from_dict({"prompt": prompts, "answer": ["2"] * len(prompts)})
        for prompts in (["1 + 1", "3 - 1"], ["2 + 0"])
    )
    for _ in range(2):  # the second time by a resume
        log_problem_sets(tracker, (hub, train), {"mine": (DataSettings(source="/data/test.jsonl"), test)})
        assert described() == [
            ("evaluation", "mine", digest(["2 + 0"], ["2"]), "local", '{"num_rows": 1}'),
            (
                "training",
                "openai/gsm8k/main",
                digest(["1 + 1", "3 - 1"], ["2", "2"]),
                "hugging_face",
                '{"num_rows": 2}',
            ),
        ]
    assert digest(["1 + 1"], ["2"]) != digest(["1 + 1"], ["3"]) and len(digest([], [])) == 16


def record(tracker: Tracker, step: int, value: float) -> dict[str, float]:
    """The metrics that stand."""
    path = tracker.folder / f"iterations/{step:06d}/metrics.json"
    tracker.record(path, step, {"a": value, "b": 2 * value})
    return dict(json.loads(path.read_text())["metrics"])


def points(tracker: Tracker) -> dict[str, list[tuple[int, float]]]:
    history = {key: tracker.client.get_metric_history(tracker.run_id, key) for key in ("a", "b")}
    return {key: sorted((p.step, p.value) for p in found) for key, found in history.items()}


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path: Path) -> None:
    """MLflow itself would say "already exists" from then on."""
    database, partial = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.partial"
    code = f"from tasks.tracking.database import make_database; make_database('sqlite:///{database}')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.DEVNULL) as making:
        while not partial.exists() or partial.stat().st_size < 50_000:
            assert making.poll() is None
            time.sleep(0.001)
        making.kill()
    assert partial.stat().st_size < 900_000 and not database.exists()
    make_database(f"sqlite:///{database}")
    assert database.exists() and not partial.exists()
    assert MlflowClient(f"sqlite:///{database}").create_experiment("one") == "1"


def test_resume_uses_the_same_run_and_doubles_nothing(tracker: Tracker, tmp_path: Path) -> None:
    record(tracker, 1, 1.0)
    record(tracker, 2, 2.0)
    again = open_tracker(tmp_path)
    assert again.run_id == tracker.run_id
    again.redeliver(last_iteration=1)
    assert record(again, 2, 99.0) == {"a": 2.0, "b": 4.0}  # computed again after a crash: the first record stands
    record(again, 3, 3.0)
    assert points(again) == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)], "b": [(1, 2.0), (2, 4.0), (3, 6.0)]}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RuntimeError("no\nmore"), "FAILED", "no"),
        (KeyboardInterrupt(), "KILLED", "stopped; the same command goes on"),
        (TerminationSignal(15), "KILLED", "stopped; the same command goes on"),
    ],
)
def test_how_a_run_has_ended(tracker: Tracker, tmp_path: Path, error: BaseException, status: str, said: str) -> None:
    tracker.fail(error)
    run = tracker.client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["error"]) == (status, said)
    again = tracker.client.get_run(open_tracker(tmp_path).run_id)
    assert again.info.run_id == tracker.run_id and again.info.status == "RUNNING" and "error" not in again.data.tags


def test_system_metrics_go_on_after_a_resume(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")

    def steps() -> list[int]:
        used = tracker.client.get_metric_history(tracker.run_id, "system/cpu_utilization_percentage")
        return sorted(point.step for point in used)

    for _ in range(2):
        before = len(steps())
        with system_metrics(tracker.run_id):
            until = time.monotonic() + 30
            while len(steps()) < before + 2:
                assert time.monotonic() < until
                time.sleep(0.05)
    assert steps() == list(range(len(steps())))
    record(tracker, 1, 1.0)
    assert {point.key for point in tracker._history()} == {"a", "b"}

    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    count = len(steps())
    with system_metrics(tracker.run_id):
        time.sleep(0.5)
    assert len(steps()) == count


def test_settings_are_parameters_as_they_were_at_the_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def opened(micro_batch: int) -> dict[str, str]:
        config = load_run("tiny", [f"train.micro_batch_tokens={micro_batch}"])
        settings, attempt = config.model_dump(mode="json"), tracking.this_attempt(tmp_path / "run")
        found = Tracker.open("test", "run-1", tmp_path / "run", attempt, {}, settings)
        return dict(found.client.get_run(found.run_id).data.params)

    first = opened(1024)
    assert len(first) > 100, "more than MLflow takes at a time"
    assert first["train.micro_batch_tokens"] == "1024" and first["train.betas"] == "[0.9, 0.98]"
    assert first["algorithm.name"] == "sgpo" and first["model.path"] == "null"
    assert "eval.sets.chains.k" in first and first["model.chat_template"] == "false"
    assert opened(2048) == first


def test_a_value_of_any_length_and_sign(tracker: Tracker) -> None:
    settings = {"a": {"b": "x" * 9000, "c": {}, "d": [1, {"e": "ü"}], "body": {"$schema": 1}}}
    found = as_parameters(settings)
    assert found["a.b"].endswith("x…") and len(found["a.b"]) == 6000
    assert (found["a.c"], found["a.d"]) == ("{}", '[1, {"e": "ü"}]')
    assert found["a.body"] == '{"$schema": 1}', "a name that MLflow does not take"
    tracker.client.log_batch(tracker.run_id, params=[Param(key, value) for key, value in found.items()])


def test_without_git_the_commit_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("SGPO_COMMIT", raising=False)
    assert git_commit() == "unknown"
    monkeypatch.setenv("SGPO_COMMIT", "abc123")
    assert git_commit() == "abc123"


def test_an_experiment_opens_as_training_runs(tracker: Tracker) -> None:
    experiment = tracker.client.get_experiment_by_name("test")
    assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_starting_over_is_another_mlflow_run_and_the_old_one_goes(tracker: Tracker, tmp_path: Path) -> None:
    record(tracker, 1, 1.0)
    shutil.rmtree(tmp_path / "run")
    again = open_tracker(tmp_path)
    record(again, 1, 5.0)
    assert again.run_id != tracker.run_id and points(again)["a"] == [(1, 5.0)]
    experiment = again.client.get_run(again.run_id).info.experiment_id
    assert [r.info.run_id for r in again.client.search_runs([experiment])] == [again.run_id]


def test_record_written_but_not_sent_is_delivered_on_resume(tracker: Tracker, tmp_path: Path) -> None:
    record(tracker, 1, 1.0)
    path = tracker.folder / "iterations/000002/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"step": 2, "timestamp_ms": 5, "metrics": {"a": 7.0, "b": 8.0}}))
    again = open_tracker(tmp_path)
    again.redeliver(last_iteration=2)
    assert points(again) == {"a": [(1, 1.0), (2, 7.0)], "b": [(1, 2.0), (2, 8.0)]}


def test_server_away_in_the_middle_loses_nothing(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tracker.client.log_batch

    def away(*_: object, **__: object) -> None:
        raise MlflowException("connection refused")

    record(tracker, 1, 1.0)
    monkeypatch.setattr(tracker.client, "log_batch", away)
    record(tracker, 2, 2.0)
    assert len(tracker.waiting) == 1
    for last_attempt in (tracker.deliver_waiting, tracker.finish):
        with pytest.raises(RuntimeError, match="nothing is lost"):
            last_attempt()
    assert tracker.client.get_run(tracker.run_id).info.status == "RUNNING"
    monkeypatch.setattr(tracker.client, "log_batch", real)
    record(tracker, 3, 3.0)
    assert not tracker.waiting
    assert [step for step, _ in points(tracker)["a"]] == [1, 2, 3]
    tracker.finish()
    assert tracker.client.get_run(tracker.run_id).info.status == "FINISHED"


def test_unreachable_server_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI=http://127\.0\.0\.1:9"):
        check_reachable("http://127.0.0.1:9")


def test_an_apostrophe_in_the_home_s_path_is_nothing_special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path / "o'brien"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "o'brien" / "sgpo" / "tiny-1"
    first = Tracker.open("sgpo", "tiny-1", folder, "a", {}, {})
    assert Tracker.open("sgpo", "tiny-1", folder, "a", {}, {}).run_id == first.run_id
    # A run of the same id in another folder is another one.
    assert Tracker.open("sgpo", "tiny-1", tmp_path, "a", {}, {}).run_id != first.run_id


@pytest.mark.parametrize("character", ["?", "#", "%"])
def test_a_home_that_no_database_can_be_in_is_refused(character: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGPO_HOME", f"/tmp/a{character}b")
    with pytest.raises(ConfigError, match="SGPO_HOME="):
        home()
