"""The services around the flows: Prefect's server and one worker, MLflow.

    python -m tasks.services.stack up|down|status

    up ─┬─▶ prefect ──▶ worker ──▶ deploy prefect.yaml
        └─▶ mlflow (unless MLFLOW_TRACKING_URI names a server)

All state lies below `home()`: pid files, logs, lock and login in services/, the rest where each service keeps it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgpo_core.config.base import ConfigError
from tasks.paths import REPOSITORY, home, writable_home
from tasks.services.access import is_to_want_login, publish, show_what_is_up, wants_login, withdraw
from tasks.services.environment import NAMES, PAGES, addresses, is_own, pid_file, service_environment
from tasks.services.login import MLFLOW_PASSWORD, kept_login, make_login, mlflow_login, set_login
from tasks.services.processes import MARK, Record, launch, stop

HOST = "127.0.0.1"
PORTS = {"prefect": 4200, "mlflow": 5000}
HEALTH_DEADLINE_S = 120.0


class ServiceError(Exception):
    """What the user has to know: (message) or (message, exit code)."""


@dataclass(frozen=True)
class Service:
    """A process that has to run: it works once `health` answers, or, without one, once its log says "started!"."""

    name: str
    command: str  # of `python -m`
    url: str  # what it serves, or serves for
    health: str = ""


def _file(name: str) -> Path:
    return home() / "services" / name


def _plan(ports: dict[str, int]) -> list[Service]:
    """What has to run, in the order of starting. What runs already keeps its port; what the user names is not ours."""
    urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()} | addresses()
    server, mlflow = urls["prefect"], urls["mlflow"]
    api = os.environ.get("PREFECT_API_URL") or f"{server}/api"
    plan = []
    if api == f"{server}/api":
        command = f"prefect server start --host {HOST} --port {ports['prefect']}"
        plan.append(Service("prefect", command, server, f"{server}/api/health"))
    if service_environment()["MLFLOW_TRACKING_URI"].startswith(("sqlite", "postgresql", "mysql", "mssql")):
        command = f"mlflow server --host {HOST} --port {ports['mlflow']} --workers 1"
        if os.environ.get(MLFLOW_PASSWORD) != "":
            command += " --app-name basic-auth"
        plan.append(Service("mlflow", command, mlflow, f"{mlflow}/health"))
    # One flow run at a time: engines are sized for the whole machine. Others wait in the queue.
    return [*plan, Service("worker", "prefect worker start --type process --pool sgpo --name sgpo --limit 1", api)]


def _require_free(service: Service) -> None:
    port = int(service.url.rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed just now is free
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            setting = f"SGPO_{service.name.upper()}_PORT"
            raise ServiceError(
                f"port {port} for {service.name} is not to be had ({error}): end the program that uses it, or choose "
                f"another port with {setting}, as in `make up {setting}={PORTS[service.name] + 10000}`",
                2,
            ) from None


def _start(service: Service, api: str) -> Callable[[], None]:
    """Starts a service; returns the function that waits until it works."""
    log = _file(f"{service.name}.log")
    old = log.stat().st_size if log.exists() else 0
    variables = _variables(service, api)
    if service.name == "mlflow":  # which would make its database in place
        command = (sys.executable, "-m", "tasks.tracking.database")
        with log.open("ab") as out:
            made = subprocess.run(command, cwd=REPOSITORY, env=variables, stdout=out, stderr=out, check=False)
        if made.returncode:
            raise ServiceError(f"MLflow's database can't be made{_end_of(log, old)}")
    login = is_to_want_login(service.name)
    child = launch(service.command, service.url, pid_file(service.name), log, variables, login)

    def wait() -> None:
        deadline = time.monotonic() + HEALTH_DEADLINE_S
        while child.poll() is None and time.monotonic() < deadline:
            if _answers(service.health) if service.health else b"started!" in log.read_bytes()[old:]:
                return
            time.sleep(0.2)
        what = f"does not answer after {HEALTH_DEADLINE_S:.0f} s" if child.poll() is None else "stopped by itself"
        raise ServiceError(f"{service.name} {what}{_end_of(log, old)}")

    return wait


def _variables(service: Service, api: str) -> dict[str, str]:
    """The environment of a service."""
    variables = _client_variables(api) | {"PYTHONUNBUFFERED": "1", MARK: _mark(service.name)}
    variables["MLFLOW_BACKEND_STORE_URI"] = variables["MLFLOW_TRACKING_URI"]  # no argument: it may hold a password
    if service.name == "prefect":
        set_login(variables, make_login())
        if not os.environ.get(PAGES):
            variables[PAGES] = f"{service.url},{service.url.replace(HOST, 'localhost')}"  # its own, under both names
    if service.name == "mlflow":
        variables = mlflow_login(make_login()) | variables
    return variables


def _client_variables(api: str) -> dict[str, str]:
    """The environment of what asks Prefect's server."""
    variables = os.environ | service_environment() | {"PREFECT_API_URL": api}
    if is_own(api):
        set_login(variables, make_login())
    return variables


def _mark(name: str) -> str:
    return f"{name}@{home()}"


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would look for its own 127.0.0.1
    try:
        with direct.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _end_of(log: Path, old: int = 0) -> str:
    lines = log.read_bytes()[old:].decode(errors="replace").splitlines()[-15:]
    return "\n".join([f"; the end of {log}:", *(f"    {line}" for line in lines)])


def _stop(name: str) -> bool:
    """Flow runs end before their worker, which reports them as crashed: else they would show as running for ever."""
    return stop(pid_file(name), _mark(name), children_first=name == "worker")


def _deploy(api: str) -> None:
    log = _file("deploy.log")
    variables = _client_variables(api)
    with log.open("wb") as out:
        for module in ("prefect --no-prompt deploy --all", "tasks.services.alarm"):
            command = (sys.executable, "-m", *module.split())
            done = subprocess.run(
                command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, stderr=out, check=False
            )
            out.write(done.stdout)
            if done.returncode:
                raise ServiceError(f"`{module}` failed{_end_of(log)}")
    print(done.stdout.decode(errors="replace").strip(), flush=True)  # who is told of a regression


def up(ports: dict[str, int]) -> None:
    """Starts what does not run, deploys what is not deployed, and says where everything is."""
    if kept_login() is None and any(wants_login(name) for name in addresses()):  # the user has removed it
        print("what runs is started anew: its login is not there", flush=True)
        down()
    plan, running = _plan(ports), addresses()
    for name in running:
        if wants_login(name) != is_to_want_login(name):
            print(f"{name} keeps the login, or none, with which it was started: `make down` first to change that")
    api = plan[-1].url
    missing = [service for service in plan if running.get(service.name) != service.url]
    for service in missing:
        if service.health or service.name in running:  # the flow runs of a worker that died may go on
            _stop(service.name)  # what a server that died has left behind, or a worker for another address
        if service.health:
            _require_free(service)
    make_login()
    waits: dict[str, Callable[[], None]] = {}
    started = []
    try:
        for service in missing:
            print(f"starting {service.name}, log: {_file(service.name)}.log", flush=True)
            if service.name == "worker" and "prefect" in waits:
                waits.pop("prefect")()
            started.append(service.name)
            waits[service.name] = _start(service, api)
        for wait in waits.values():
            wait()
    except BaseException:
        for name in reversed(started):
            _stop(name)
        raise
    publish(api)
    deployed = _file("deployed")
    decisive = [(REPOSITORY / file).read_bytes() for file in ("prefect.yaml", "conf/alarm.yaml")]
    decisive += [api.encode(), os.environ.get("SGPO_ALARM_URL", "").encode()]
    wanted = hashlib.sha256(b"\0".join(decisive)).hexdigest()
    if missing or not deployed.exists() or deployed.read_text() != wanted:
        print("deploying the flows of prefect.yaml", flush=True)
        deployed.unlink(missing_ok=True)
        _deploy(api)
        deployed.write_text(wanted)
    else:
        print("already up, nothing to do (to change a port: `make down` first)")
    show_what_is_up(api)


def down() -> None:
    """Ends what `up` started, the worker first."""
    stopped = [name for name in reversed(NAMES) if _stop(name)]
    withdraw()
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status() -> bool:
    """Prints what runs; returns whether everything does."""
    plan, running = _plan(PORTS), addresses()
    for service in plan:
        record = Record.read(pid_file(service.name))
        state = f"running  pid {record.pid:<8} {record.url}" if record and service.name in running else "stopped"
        print(f"  {service.name:<8} {state}")
    return all(service.name in running for service in plan)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.services.stack", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("command", choices=("up", "down", "status"))
    for name, port in PORTS.items():
        variable = f"SGPO_{name.upper()}_PORT"
        default = os.environ.get(variable) or str(port)  # a string: argparse checks it like one that was typed
        parser.add_argument(f"--{name}-port", type=int, default=default, help=f"or {variable}; {port} by default")
    asked = parser.parse_args(arguments)
    if asked.command == "status":
        return 0 if status() else 1
    try:
        writable_home()
    except ConfigError as error:
        print(f"services: {error}", file=sys.stderr)
        return 2
    for folder in (_file(""), Path(service_environment()["PREFECT_HOME"])):  # logs, and a database with secrets
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _file("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one `up` or `down` at a time
        try:
            up({name: getattr(asked, f"{name}_port") for name in PORTS}) if asked.command == "up" else down()
        except ServiceError as error:
            print(f"services: {error.args[0]}", file=sys.stderr)
            return int(error.args[1]) if len(error.args) > 1 else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
