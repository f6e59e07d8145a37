"""MLflow's model registry: versions of policies, the aliases that nightly evaluation goes by, and their metrics.

A version is an MLflow model around a Hugging Face folder (safetensors); the page of the logged model shows the metrics.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgpo_core.config.base import ConfigError
from sgpo_core.storage.weights import weights_hash
from tasks.paths import home
from tasks.tracking.flavor import log_as_model
from tasks.tracking.server import create_model, let_in, open_client
from tasks.tracking.tracker import NotThere, local_artifacts, log_model_metrics

CANDIDATE, CHAMPION = "candidate", "champion"
_AVG, _PROTOCOL = "avg_at_k", "protocol"  # tags of a version
log = logging.getLogger("sgpo.tracking")
_ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a registered model; `alias` is the one it was found by, "" for a number."""

    model: str
    version: str
    alias: str
    run_id: str
    model_id: str
    source: str

    @property
    def label(self) -> str:
        return f"{self.model}@{self.alias}" if self.alias else f"{self.model}/{self.version}"

    def folder(self) -> Path:
        """The policy's files, on this machine."""
        found = local_artifacts(self.source, home() / "registry" / self.model / self.version)
        return next((file.parent for file in found.rglob("config.json")), found)


@dataclass(frozen=True, slots=True)
class Score:
    """How good a policy was in its own run: mean avg@k (0..1), and a hash of how that was measured."""

    avg_at_k: float
    protocol: str


def register(model: str, folder: Path, run_id: str, alias: str = CANDIDATE, score: Score | None = None) -> Version:
    """A new version with these weights, made by this MLflow run, which the alias then names. The same weights of the
    same run are registered once. With a `score` the alias stays at a version that has at least the same one, measured
    in the same way. Raises ConfigError where the server does not let us add to this model."""
    client, weights = open_client(), weights_hash(folder)
    with let_in(f"checkpoint.model={model}"):
        create_model(client, model, "Policies of training runs (tasks/tracking/registry.py).")
        client.set_registered_model_tag(model, "made_by", "sgpo")  # refused here, not when the weights are there
    same = [
        found
        for found in client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        if found.tags.get("weights") == weights
    ]
    found = same[0] if same else _create(client, model, folder, run_id, weights, score)
    if score is not None and (better := _as_good(client, model, alias, score, found.version)):
        log.warning(
            "version %s of %s (avg@k %.3f) is not its %s: version %s has %s. Its page in MLflow sets aliases",
            *(found.version, model, score.avg_at_k, alias, better.version, better.tags[_AVG]),
        )
        return _version(found, "")
    client.set_registered_model_alias(model, alias, found.version)
    return _version(found, alias)


def _as_good(client: Any, model: str, alias: str, score: Score, version: str) -> Any:
    """The other version that the alias names, if it is at least as good by the same measure; else None."""
    if alias not in client.get_registered_model(model).aliases:
        return None
    named = client.get_model_version_by_alias(model, alias)
    measured_alike = named.version != version and named.tags.get(_PROTOCOL) == score.protocol
    return named if measured_alike and float(named.tags[_AVG]) >= score.avg_at_k else None


def _create(client: Any, model: str, folder: Path, run_id: str, weights: str, score: Score | None) -> Any:
    run = client.get_run(run_id)
    logged = client.create_logged_model(run.info.experiment_id, name=model, source_run_id=run_id)
    log_as_model(client, logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    tags = {"weights": weights, "run": run.data.tags.get("run_id", ""), "logged_model": logged.model_id}
    if score is not None:
        tags |= {_AVG: f"{score.avg_at_k:.4f}", _PROTOCOL: score.protocol}
    return client.create_model_version(
        model, logged.artifact_location, run_id=run_id, tags=tags, model_id=logged.model_id
    )


def find(address: str) -> Version:
    """The version at `models:/name@alias` or `models:/name/3`. Raises ConfigError where there is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address}: an address in the registry is models:/NAME@ALIAS or models:/NAME/VERSION")
    model, alias, number = match.groups()
    client = open_client()
    try:
        found = client.get_model_version_by_alias(model, alias) if alias else client.get_model_version(model, number)
    except NotThere as error:
        known = sorted(model.name for model in client.search_registered_models())
        raise ConfigError(f"{address}: {error}. Registered models: {', '.join(known) or 'none'}") from None
    return _version(found, alias or "")


def candidates_and_champions() -> list[Version]:
    """Of every registered model the versions named by these aliases, the champion first; models by name."""
    client = open_client()
    return [
        _version(client.get_model_version_by_alias(model.name, alias), alias)
        for model in sorted(client.search_registered_models(), key=lambda model: model.name)
        for alias in (CHAMPION, CANDIDATE)
        if alias in model.aliases
    ]


def log_version_metrics(version: Version, metrics: Mapping[str, float], step: int) -> None:
    """Points on the page of this version."""
    log_model_metrics(version.run_id, version.model_id, metrics, step)


def _version(found: Any, alias: str) -> Version:
    return Version(
        found.name, str(found.version), alias, found.run_id, found.tags.get("logged_model", ""), found.source
    )
