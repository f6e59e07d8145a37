"""What a process that runs flows needs: where the services are, and Prefect's and MLflow's settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tasks.paths import REPOSITORY, home, writable_home
from tasks.services.login import kept_login, new_login, set_login
from tasks.services.processes import Record

NAMES = ("prefect", "mlflow", "worker")
# Whose pages may ask Prefect's server. By default those of every origin may: any site that is open in a browser on this
# machine could have flows run, and code.
PAGES = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"


def prepare_process() -> None:
    """Makes this process, which runs flows, keep all state below `home()` and find the services that are up. Called
    once, before the first flow; a Prefect that was imported before has read its settings then, and reads them again.
    Raises ConfigError for a home that can't be used."""
    writable_home()
    os.environ.update(service_environment())
    Path(os.environ["PREFECT_HOME"]).mkdir(mode=0o700, parents=True, exist_ok=True)  # its database holds secrets
    # After that: what imports Prefect without DO_NOT_TRACK is told that it reports how it is used.
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import setup_logging
    from prefect.settings import PREFECT_API_URL

    refresh_global_settings_context()
    api = PREFECT_API_URL.value()  # a profile of the user's may name a server, too
    if not api:  # Prefect will start a server for this process
        set_login(os.environ, new_login())
    elif is_own(api) and (login := kept_login()):  # any other server is sent none of ours
        set_login(os.environ, login)
    refresh_global_settings_context()
    setup_logging()


def option(name: str) -> str:
    """How an option of a flow is written where this process was started: --fresh in a shell, fresh=true in Prefect,
    which tells the process of a deployment whose run it is."""
    return f"{name}=true" if "PREFECT__FLOW_RUN_ID" in os.environ else f"--{name}"


def pid_file(name: str) -> Path:
    """Where a service's process is recorded."""
    return home() / "services" / f"{name}.json"


def addresses() -> dict[str, str]:
    """Where the services that are alive are found, by name."""
    records = {name: Record.read(pid_file(name)) for name in NAMES}
    return {name: record.url for name, record in records.items() if record and record.process()}


def is_own(api: str) -> bool:
    """Whether Prefect's server of `make up` is asked at this address, while it is alive."""
    server = addresses().get("prefect")
    return server is not None and _place(api) == _place(f"{server}/api")


def _place(url: str) -> tuple[object, ...]:
    """An address however it is written."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return parts.scheme, host, parts.port, parts.path.rstrip("/")


def service_environment() -> dict[str, str]:
    """The variables that a process which runs flows needs; what the user has set stays.

    Without a server of ours PREFECT_API_URL stays unset, and Prefect starts one of its own for that process.
    """
    prefect_home = os.environ.get("PREFECT_HOME") or f"{home()}/prefect"
    wanted = {
        "SGPO_HOME": str(home()),
        "PREFECT_HOME": prefect_home,
        "PREFECT_PROFILES_PATH": f"{prefect_home}/profiles.toml",  # not that of `publish`: its server may have died
        "PREFECT_SERVER_MEMO_STORE_PATH": f"{prefect_home}/memo_store.toml",  # by default in ~/.prefect, whatever home
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        PAGES: "http://127.0.0.1",  # none: the server of one process has no page that anybody opens
        # Without these `prefect deployment run --watch` shows no line of the log, and so not why a run has failed.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few on a busy machine
        "MLFLOW_TRACKING_URI": f"sqlite:///{home()}/mlflow.db",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"{home()}/mlartifacts",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # A line an iteration is news, one for each task's state is not.
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
        "DO_NOT_TRACK": "1",
        "TORCH_EXTENSIONS_DIR": f"{sys.prefix}/torch_extensions",
    }
    if server := addresses().get("prefect"):
        wanted["PREFECT_API_URL"] = f"{server}/api"
    variables = {name: os.environ.get(name) or value for name, value in wanted.items()}
    return variables | {
        "PATH": _prepend(f"{sys.prefix}/bin", os.environ.get("PATH") or os.defpath),
        "PYTHONPATH": _prepend(str(REPOSITORY), os.environ.get("PYTHONPATH", "")),
    }


def _prepend(entry: str, path: str) -> str:
    return os.pathsep.join([entry, *(part for part in path.split(os.pathsep) if part not in ("", entry))])
