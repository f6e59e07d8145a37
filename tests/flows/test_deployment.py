"""The way users take: `make up`, `prefect deployment run ... --watch`, MLflow's page, `make down`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sgpo_core.config.base import ConfigError
from sgpo_core.storage.digests import seal
from tasks.services import access
from tasks.sweeps.tracking import open_summary
from tasks.tracking import registry
from tasks.tracking.server import check_reachable
from tasks.tracking.tracker import Tracker, new_attempt
from tests.helpers import (
    REPOSITORY,
    SMALL,
    authorization,
    greeting,
    places_of,
    run_module,
    shell_environment,
    start_from,
    status,
)

ARTIFACTS = "mlflow-artifacts/artifacts"
PREFECT = Path(sys.executable).parent / "prefect"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[str]]]:
    """An address, and what is posted there."""
    told: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a-token", told
    server.shutdown()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, webhook: tuple[str, list[str]]) -> dict[str, str]:  # type: ignore[misc]
    """Server, worker and MLflow of their own, on free ports; the environment of a shell that uses them."""
    home, ports = tmp_path_factory.mktemp("services"), (free_port(), free_port())
    shell = shell_environment(home, SGPO_PREFECT_PORT=str(ports[0]), SGPO_MLFLOW_PORT=str(ports[1]))
    shell["SGPO_ALARM_URL"] = webhook[0]
    if access.POINTER.exists():  # somebody works with services of their own from this checkout
        shell["PREFECT_API_URL"] = f"http://127.0.0.1:{ports[0]}/api"
    command = [sys.executable, "-m", "tasks.services.stack"]
    started = subprocess.run([*command, "up"], cwd=REPOSITORY, env=shell, capture_output=True, text=True, timeout=300)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        assert all(f"http://127.0.0.1:{port}" in started.stdout for port in ports)
        login = (home / "services" / "login").read_text().strip()
        assert login not in started.stdout and f"the login is in {home}/services/login" in started.stdout
        if "PREFECT_API_URL" in shell:
            shell["PREFECT_API_AUTH_STRING"] = login
        user, _, password = login.partition(":")
        with pytest.MonkeyPatch.context() as here:  # MLflow's client
            here.setenv("MLFLOW_TRACKING_USERNAME", user)
            here.setenv("MLFLOW_TRACKING_PASSWORD", password)
            servers = {"_prefect": f"http://127.0.0.1:{ports[0]}", "_mlflow": f"http://127.0.0.1:{ports[1]}"}
            yield shell | servers | {"_login": login}
    finally:
        down = subprocess.run(
            [*command, "down"], cwd=REPOSITORY, env=shell, capture_output=True, text=True, timeout=120
        )
    assert down.returncode == 0, down.stderr
    for port in ports:
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", port)) != 0


def test_deployments_of_all_sizes_are_there(up: dict[str, str]) -> None:
    listed = subprocess.run(
        [PREFECT, "deployment", "ls", "-o", "json"],
        cwd=REPOSITORY, env=up, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    shipped = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    deployed = {(d["entrypoint"], d["name"]) for d in json.loads(listed.stdout)}
    assert deployed == {(d["entrypoint"], d["name"]) for d in shipped}
    sizes = {
        (f"flows/{flow}.py:{flow}", size) for flow in ("online", "offline") for size in ("tiny", "7b", "14b", "32b")
    }
    assert deployed > sizes | {
        ("flows/evaluation.py:benchmark_eval", "nightly"),
        ("flows/sweep.py:sweep", "judges-tiny"),
    }


def test_deployment_runs_on_the_worker_and_lands_in_mlflow(up: dict[str, str], policy: str) -> None:
    overrides = json.dumps(["algorithm=grpo", *SMALL, *start_from(policy)])
    done = subprocess.run(
        [PREFECT, "deployment", "run", "sgpo-online/tiny", "--watch", "-p", f"overrides={overrides}"],
        cwd=REPOSITORY, env=up, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + worker_log(up)
    client = mlflow.MlflowClient(up["_mlflow"])
    experiment = client.get_experiment_by_name("sgpo")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["algorithm"] == "grpo"
    assert len(client.get_metric_history(run.info.run_id, "group/all_negative_frac")) == 4
    assert status(up["_mlflow"], up["_login"]) == 200
    keys = [run.info.run_name, f"{run.info.run_name}-progress"]
    shown = {
        artifact["key"]: artifact["data"]
        for artifact in asked(up, "artifacts/latest/filter", {"artifacts": {"key": {"any_": keys}}})
    }
    address = f"{up['_mlflow']}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}"
    assert "after iteration 4 of 4" in shown[keys[0]] and f"[MLflow]({address})" in shown[keys[0]]
    assert shown[keys[1]] == 100.0


def test_the_schedule_creates_runs(up: dict[str, str]) -> None:
    [found] = asked(up, "deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    [schedule] = found["schedules"]
    assert schedule["active"] and schedule["schedule"]["cron"] == "0 3 * * *"
    assert schedule["schedule"]["timezone"] == "UTC"
    query = {"deployments": {"id": {"any_": [found["id"]]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    deadline = time.monotonic() + 150  # the scheduler looks once a minute
    while not (runs := asked(up, "flow_runs/filter", query)):
        assert time.monotonic() < deadline, "nothing was scheduled"
        time.sleep(1)
    assert all(run["auto_scheduled"] and run["expected_start_time"][11:16] == "03:00" for run in runs)


def test_a_policy_that_became_worse_raises_the_alarm(
    up: dict[str, str], policy: str, webhook: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", up["_mlflow"])
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    tracker = Tracker.open("by-hand", "one", tmp_path, new_attempt(), {}, {})
    registry.register("night", Path(policy), tracker.run_id, registry.CHAMPION)
    registry.register("night", Path(policy), tracker.run_id, registry.CANDIDATE)
    settings = answered_by(policy, tmp_path / "answers")
    assert tags_after_a_night(up, settings) == {"sgpo", "evaluation", "nightly"} and webhook[1] == []
    registry.register("night", made_worse(Path(policy), tmp_path / "worse"), tracker.run_id, registry.CANDIDATE)
    assert "regression" in tags_after_a_night(up, settings)

    artifacts = asked(up, "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["benchmark-nightly"]}}})
    assert artifacts[0]["data"].startswith("# REGRESSION") and "`chains-" in artifacts[0]["data"]
    deadline = time.monotonic() + 60  # the server takes events up behind the flow run's back
    while len(events := alarms(up)) < 2 or len(webhook[1]) < 2:
        assert time.monotonic() < deadline, (events, webhook[1])
        time.sleep(0.5)
    assert {event["payload"]["against"] for event in events} == {"the last night", "the champion"}
    assert all(event["payload"]["drop"] > 0 and event["payload"]["lower"] for event in events)
    assert "night@candidate became worse on chains-carry-0" in webhook[1][0]

    client = mlflow.MlflowClient(up["_mlflow"])
    nightly = client.get_experiment_by_name("nightly")
    assert nightly is not None
    runs = {run.data.tags["run_id"]: run for run in client.search_runs([nightly.experiment_id])}
    assert runs.keys() >= {"night@champion", "night@candidate"}
    points = client.get_metric_history(runs["night@candidate"].info.run_id, "eval/chains-carry-0/avg_at_k")
    assert [p.step for p in points] == [1, 2] and points[1].value < points[0].value


def alarms(up: dict[str, str]) -> list[Any]:
    """The events of alarms that the server holds."""
    return asked(up, "events/filter", {"filter": {"event": {"name": ["sgpo.benchmark.regression"]}}})["events"]


def made_worse(policy: Path, folder: Path) -> Path:
    """The same policy with noise on its weights."""
    shutil.copytree(policy, folder)
    generator = torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    noisy = {
        name: tensor + 0.3 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1
        else tensor
        for name, tensor in weights.items()
    }
    save_file(noisy, folder / "model.safetensors")
    seal(folder)
    return folder


def answered_by(policy: str, home: Path) -> list[str]:
    """Settings of a benchmark whose answers are the policy's own: it gets no true ones right, so that it could not
    become worse on those."""
    settings = [
        *("eval=chains-carry-0", "eval.sets.chains-carry-0.k=1", "eval.sets.chains-carry-0.temperature=0"),
        "cluster.rollout_actors=1",
    ]
    done = run_module("flows.evaluation", policy, *settings, home=home, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    [grades] = home.glob("evaluations/*/chains-*/grades-*.parquet")
    answers = {row["number"]: row["extracted_answer"] for row in pq.read_table(grades).to_pylist()}
    rows = pq.read_table(grades.parent / "generations").to_pylist()
    lines = [
        json.dumps({"id": row["problem_id"], "problem": row["problem"], "answer": answers[row["number"]]})
        for row in sorted(rows, key=lambda row: row["number"])
        if answers[row["number"]]
    ]
    assert len(lines) > 30
    (home / "answers.jsonl").write_text("\n".join(lines))
    return [*settings, f"eval.sets.chains-carry-0.data.source={home / 'answers.jsonl'}"]


def tags_after_a_night(up: dict[str, str], settings: list[str]) -> set[str]:
    """Runs the nightly; the tags of its flow run."""
    overrides = f"overrides={json.dumps(settings)}"
    done = subprocess.run(
        [PREFECT, "deployment", "run", "benchmark-eval/nightly", "--watch", "-p", overrides],
        cwd=REPOSITORY, env=up, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + worker_log(up)
    ended = {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}}  # others wait for their hour
    flow = {"flows": {"name": {"any_": ["benchmark-eval"]}}, "flow_runs": ended, "sort": "END_TIME_DESC", "limit": 1}
    return set(asked(up, "flow_runs/filter", flow)[0]["tags"])


def asked(up: dict[str, str], path: str, query: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"} | authorization(up["_login"])
    request = Request(f"{up['_prefect']}/api/{path}", json.dumps(query).encode(), headers)
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_preset_without_its_gpus_fails_within_seconds(up: dict[str, str]) -> None:
    done = subprocess.run(
        [PREFECT, "deployment", "run", "sgpo-online/7b", "--watch"],
        cwd=REPOSITORY, env=up, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode != 0 and "preset 7b needs 8 GPUs" in " ".join(done.stdout.split()), done.stdout


def worker_log(up: dict[str, str]) -> str:
    return (Path(up["SGPO_HOME"]) / "services" / "worker.log").read_text()


def test_what_mlflow_refuses_is_put_in_words(
    up: dict[str, str], policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", up["_mlflow"])

    def start() -> Tracker:
        return Tracker.open("owned", "one", tmp_path, new_attempt(), {}, {})

    def as_administrator(path: str, **what: str) -> None:
        headers = {"Content-Type": "application/json"} | authorization(up["_login"])
        request = Request(f"{up['_mlflow']}/api/{path}", json.dumps(what).encode(), headers)
        urlopen(request, timeout=30).close()

    first = start()
    registry.register("owned", Path(policy), first.run_id)
    experiment = first.client.get_run(first.run_id).info.experiment_id
    as_administrator("2.0/mlflow/users/create", username="ann", password="not-an-easy-one")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    with pytest.raises(ConfigError, match="MLflow does not know user ann with this password: correct MLFLOW_"):
        check_reachable(up["_mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-an-easy-one")
    with pytest.raises(ConfigError, match=r"experiment=owned: .* does not let ann add to it"):
        start()
    with pytest.raises(ConfigError, match=r"experiment=owned: .* does not let ann add to it"):
        open_summary("owned", "a-sweep", {})
    own = Tracker.open("ann-s-own", "one", tmp_path, new_attempt(), {}, {})
    with pytest.raises(ConfigError, match=r"checkpoint.model=owned: .* ann .* choose another checkpoint.model"):
        registry.register("owned", Path(policy), own.run_id)
    what = {"resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
    as_administrator("3.0/mlflow/users/permissions/grant", username="ann", **what)
    assert start().run_id != first.run_id, "and she may not delete the one before"
    assert first.client.get_run(first.run_id).data.tags["superseded"] == "true"
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    with pytest.raises(ConfigError, match="MLflow wants another login: set MLFLOW_TRACKING_USERNAME and"):
        check_reachable(up["_mlflow"])


def test_nobody_uses_the_servers_without_the_login(up: dict[str, str]) -> None:
    """The last test: the worker's flow runs have left their logs."""
    login, api = up["_login"], f"{up['_prefect']}/api"
    mlflows = [f"{up['_mlflow']}/api/2.0/{path}" for path in ("mlflow/experiments/get?experiment_id=0", ARTIFACTS)]
    pages = [f"{api}/admin/settings", up["_mlflow"], *mlflows]
    for wrong in (None, f"{login}x", login.partition(":")[2]):
        assert [status(url, wrong) for url in pages] == [401] * 4
        assert {greeting(api, wrong, what) for what in ("events", "logs")} & {"auth_success"} == set()
    assert [status(url, login) for url in pages] == [200] * 4
    assert {greeting(api, login, what) for what in ("events", "logs")} == {"auth_success"}
    assert status(f"{api}/health") == 200 == status(f"{up['_mlflow']}/health")
    home = Path(up["SGPO_HOME"])
    assert places_of(login.partition(":")[2], home) == ["services/login", "services/profiles.toml"]
    assert {(home / name).stat().st_mode & 0o777 for name in ("services/login", "services/profiles.toml")} == {0o600}
