"""Where MLflow is, and whether it lets us in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from urllib.parse import urlparse, urlunparse
from urllib.request import urlopen

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from sgpo_core.config.base import ConfigError
from tasks.paths import home, writable_home
from tasks.tracking.database import make_database

# Without it MLflow guesses, and may open the experiment on the page for language-model traces, which shows no curves.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_ABOUT = {
    "mlflow.note.content": "Made by SGPO. docs/metrics.md says what each metric means. *Chart view*, grouped by "
    "`algorithm`, with `tags.sweep = '...'` in the search field compares the runs of a sweep."
}


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or SQLite in the folder of the runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def without_password(uri: str) -> str:
    """The address as it may be shown: user and password are left out."""
    parts = urlparse(uri)
    return urlunparse(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def check_reachable(uri: str, timeout_s: float = 5.0) -> None:
    """Raises ConfigError when a tracking server does not answer, which is known within seconds, or wants another login.
    SQLite's file is made where it is missing."""
    if urlparse(uri).scheme not in ("http", "https"):
        writable_home()
        make_database(uri)
        return
    shown = without_password(uri)
    try:
        with urlopen(f"{shown.rstrip('/')}/health", timeout=timeout_s):
            pass
    except (OSError, ValueError, HTTPException) as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI={shown}: no MLflow server answers there ({error}). Start it, correct the address, or "
            "unset the variable to use SQLite"
        ) from None
    try:
        with let_in():
            MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise ConfigError(f"MLFLOW_TRACKING_URI={shown}: MLflow's server answers with an error: {error}") from None


@contextmanager
def let_in(target: str = "") -> Iterator[None]:
    """Raises ConfigError in place of a server's answer that it does not know this account, or that the account may not
    write to the `target`, a setting and its value (experiment=NAME)."""
    try:
        yield
    except MlflowException as error:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        shown, answer = without_password(tracking_uri()), refused(error)
        if answer == 401:
            wrong = f"does not know user {user} with this password: correct" if user else "wants another login: set"
            raise ConfigError(
                f"MLFLOW_TRACKING_URI={shown}: MLflow {wrong} MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from None
        if answer and target:
            raise ConfigError(
                f"{target}: MLflow ({shown}) does not let {user or 'this login'} add to it: ask its owner or an "
                f"administrator for the permission EDIT, or choose another {target.partition('=')[0]}"
            ) from None
        raise


def refused(error: MlflowException) -> int | None:
    """401 (who are you?) or 403 (you may not), where that is the server's answer."""
    found = re.search(r"error code (401|403)\b", str(error))
    return int(found[1]) if found else None


def experiment_named(client: MlflowClient, name: str, uri: str) -> str:
    """Id of an experiment, which is made when it is not there."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = (home() / "mlartifacts" / name).resolve().as_uri() if uri.startswith("sqlite") else None
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=_KIND | _ABOUT))
    except MlflowException:  # another run made it just now
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def create_model(client: MlflowClient, name: str, description: str) -> None:
    """A registered model without versions. One that is there stays, whether this account may see it or not."""
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def open_client() -> MlflowClient:
    """Raises ConfigError when the server is out of reach."""
    check_reachable(tracking_uri())
    return MlflowClient(tracking_uri=tracking_uri())


def run_page(experiment_id: str, run_id: str, services: Mapping[str, str]) -> str:
    """The address of the page of an MLflow run; "" where no server shows it. `services`: those of `make up` that are
    alive."""
    uri = tracking_uri()
    server = without_password(uri) if uri.startswith("http") else services.get("mlflow", "")
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}" if server else ""


def page_of(run_id: str, services: Mapping[str, str]) -> str:
    """The address of the page of an MLflow run; "" also where MLflow does not know the run."""
    try:
        run = open_client().get_run(run_id)
    except (MlflowException, ConfigError):
        return ""
    return run_page(run.info.experiment_id, run_id, services)
