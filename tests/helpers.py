"""Running flows as a user would, in a home of their own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sgpo_core.storage.rollout_table import SCHEMA
from tasks.engines.guard import TOKEN

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent

# A run of seconds: 4 groups of 4, an evaluation of 8 problems.
SMALL = [
    "iterations=4",
    "sampling.problems=4",
    "sampling.group_size=4",
    "eval.every=2",
    "eval.sets.chains.data.count=8",
    "eval.sets.chains.k=2",
    "checkpoint.every=2",
]


def start_from(policy: str) -> list[str]:
    return ["model.warm_start=null", f"model.path={policy}"]


def quick_judge(policy: str) -> list[str]:
    """Settings of a judge that has learnt something, though not much."""
    return [f"base={policy}", f"policy={policy}", "steps=250", "gate_samples=32", "gate_accuracy=0"]


def shell_environment(home: Path, **more: str) -> dict[str, str]:
    """That of a fresh shell: nothing of what this process's own flows have set."""
    ours = ("SGPO_", "PREFECT_", "MLFLOW_", "RAY_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | {"SGPO_HOME": str(home)} | more


def prefect_page(key: str) -> str:
    """The newest artifact of this key on Prefect's server of this process."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
        [found] = client.read_latest_artifacts(artifact_filter=wanted)
    return str(found.data)


def columns(rollouts: Path) -> dict[str, list[Any]]:
    """A rollouts.parquet as Python lists, column by column."""
    return pq.read_table(rollouts).to_pydict()


def write_columns(rollouts: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A rollouts.parquet with some of its columns, as somebody else may have written it."""
    rollouts.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([field for field in SCHEMA if field.name in columns])
    assert set(schema.names) == set(columns)
    pq.write_table(pa.table({name: columns[name] for name in schema.names}, schema), rollouts)


def group_slices(groups: Sequence[int]) -> list[slice]:
    """The rows of each group, in order."""
    starts = [i for i, g in enumerate(groups) if i == 0 or g != groups[i - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts, len(groups)][1:], strict=True)]


@contextmanager
def meanwhile(task: Callable[[], T]) -> Iterator[Future[T]]:
    """Something else that goes on during the block: the start of a flow takes long, and does not fill two cores."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(task)


def run_module(*arguments: str, home: Path, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m <arguments>`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env=shell_environment(home, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


# Metrics that differ from run to run: clocks, and how much of the judge's work was known from a run that was cut short.
CLOCKS = ("time/", "speed/", "memory/", "judge/seconds", "judge/wait_s", "judge/cached_frac", "judge_eval/seconds")


def differences(whole: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What the `other` run does not have in common with one to which nothing happened, and what MLflow was told of it
    twice; [] where nothing. Both are results of a flow that trains."""
    one, two = Path(whole["run_dir"]), Path(other["run_dir"])
    names = [f"iterations/{iteration:06d}" for iteration in range(1, whole["iterations"] + 1)]
    tables, weights = [f"{name}/rollouts.parquet" for name in names], "policy/model.safetensors"
    found = [table for table in tables if not _sampled(one / table).equals(_sampled(two / table))]
    found += [f"{name}: metrics" for name in names if recorded(one / name) != recorded(two / name)]
    if (one / weights).read_bytes() != (two / weights).read_bytes():
        found.append(weights)
    client = mlflow.MlflowClient(f"sqlite:///{two.parents[1] / 'mlflow.db'}")
    run = client.get_run(other["mlflow_run_id"])
    if run.info.status != "FINISHED" or "error" in run.data.tags:
        found.append(f"MLflow: the run is {run.info.status}, tags {sorted(run.data.tags)}")
    if len(client.search_runs([run.info.experiment_id], f"tags.run_id = '{other['run_id']}'")) != 1:
        found.append("MLflow: several runs")
    for key in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
        if len(steps) != len(set(steps)):
            found.append(f"MLflow: {key} twice")
    rewards = client.get_metric_history(run.info.run_id, "reward/outcome_mean")
    if sorted(point.step for point in rewards) != list(range(1, whole["iterations"] + 1)):
        found.append("MLflow: iterations are missing")
    return found


def _sampled(rollouts: Path) -> pa.Table:
    """A rollouts.parquet without the column that says which verdicts were known, as after a run that was cut short."""
    return pq.read_table(rollouts).drop_columns("verdict_cached")


def recorded(iteration: Path) -> dict[str, float]:
    """The metrics of an iteration's folder, but for those that differ from run to run."""
    values = json.loads((iteration / "metrics.json").read_text())["metrics"]
    return {name: value for name, value in values.items() if not name.startswith(CLOCKS)}


def token_of(process: psutil.Process) -> str | None:
    """The token of the run that a process belongs to."""
    try:
        return process.environ().get(TOKEN)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def authorization(login: str) -> dict[str, str]:
    """The header by which USER:PASSWORD is sent."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def status(url: str, login: str | None = None) -> int:
    """How a server answers, with this login or without any."""
    try:
        with urlopen(Request(url, headers=authorization(login) if login else {}), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code


def greeting(api: str, login: str | None, what: str = "events") -> str:
    """How Prefect's server answers one that wants to hear its events, or its logs."""
    with connect(f"ws{api.removeprefix('http')}/{what}/out", subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "auth", "token": login}))
        try:
            return str(json.loads(socket.recv(timeout=30))["type"])
        except ConnectionClosed as closed:
            return closed.rcvd.reason if closed.rcvd else ""


def places_of(secret: str, folder: Path) -> list[str]:
    """Files below the folder, and command lines of processes, that hold it. The caller is a process like any other."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a database's journal comes and goes
            if path.is_file() and secret.encode() in path.read_bytes():
                found.append(str(path.relative_to(folder)))
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return sorted(found) + [" ".join(line) for line in lines if any(secret in part for part in line)]
