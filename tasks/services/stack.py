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
import json
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
from tasks.services.environment import NAMES, PAGES, addresses, is_own, pid_file, service_environment
from tasks.services.login import (
    CLIENT,
    MLFLOW_PASSWORD,
    SERVER,
    kept_login,
    login_file,
    make_login,
    mlflow_login,
    set_login,
    write_private,
)
from tasks.services.processes import MARK, Record, launch, stop

HOST = "127.0.0.1"
PORTS = {"prefect": 4200, "mlflow": 5000}
HEALTH_DEADLINE_S = 120.0
POINTER = REPOSITORY / "prefect.toml"
POINTER_TEXT = "# Written by `make up`, removed by `make down`.\nprofiles_path = {profiles}\n"


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
            subprocess.run(command, cwd=REPOSITORY, env=variables, stdout=out, stderr=out, check=True)
    login = _is_to_want_login(service.name)
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


def _publish(api: str) -> None:
    """Lets a `prefect` typed in the repository use the server with no variable set: it reads prefect.toml there.

    The address, with the login, is not in that file but in a profile it names, so that `service_environment` can
    replace it: the file outlives a server that dies, and no variable takes an address in prefect.toml back. A
    prefect.toml of the user's is left alone.
    """
    profiles = _file("profiles.toml")
    login = _prefect_login(api)
    values = {"PREFECT_API_URL": api} | ({CLIENT: login} if login else {})
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    write_private(profiles, "".join(['active = "sgpo"\n[profiles.sgpo]\n', *lines]))
    if not POINTER.exists() or POINTER.read_text().startswith(POINTER_TEXT.splitlines()[0]):
        POINTER.write_text(POINTER_TEXT.format(profiles=json.dumps(str(profiles))))
    else:
        also = f" and {CLIENT}=$(cat {login_file()})" if login else ""
        print(f"{POINTER} is not ours and stays as it is: set PREFECT_API_URL={api}{also} for the prefect command")


def _prefect_login(api: str) -> str | None:
    """The login of ours that the server at this address wants, if it does: the user may have chosen another."""
    return kept_login() if is_own(api) and _wants_login("prefect") else None


def _wants_login(name: str) -> bool:
    """Whether a service that runs was started with the login that we make."""
    record = Record.read(pid_file(name))
    return record is not None and record.login


def _is_to_want_login(name: str) -> bool:
    """Whether it would be now: of these variables the user may have set some."""
    chosen = {"prefect": {SERVER, CLIENT}, "mlflow": {MLFLOW_PASSWORD}}
    return name in chosen and not chosen[name] & os.environ.keys()


def _show_what_is_up(api: str) -> None:
    """Where the pages are, how to log in, and what to do next. A password is for a terminal, and not for a log."""
    mlflow, login = addresses().get("mlflow"), kept_login() or ""
    if sys.stdout.isatty():
        user, _, password = login.partition(":")
        prefects, mlflows = f"password {login}", f"user {user}, password {password}"
    else:
        prefects = mlflows = f"the login is in {login_file()}"
    prefects = f"   {prefects}" if _prefect_login(api) else ""
    mlflows = f"   {mlflows}" if mlflow and _wants_login("mlflow") else ""
    mlflow = mlflow or f"{os.environ['MLFLOW_TRACKING_URI']} (MLFLOW_TRACKING_URI)"
    print(f"\n  Prefect  {api.removesuffix('/api')}{prefects}\n  MLflow   {mlflow}{mlflows}\n")
    run = f"{os.path.relpath(sys.prefix, REPOSITORY)}/bin/prefect deployment run sgpo-online/tiny --watch"
    print(f"next:  {run}\n       {run} -p overrides='[\"algorithm=grpo\"]'\n       make down")


def up(ports: dict[str, int]) -> None:
    """Starts what does not run, deploys what is not deployed, and says where everything is."""
    if kept_login() is None and any(_wants_login(name) for name in addresses()):  # the user has removed it
        print("what runs is started anew: its login is not there", flush=True)
        down()
    plan, running = _plan(ports), addresses()
    for name in running:
        if _wants_login(name) != _is_to_want_login(name):
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
    _publish(api)
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
    _show_what_is_up(api)


def down() -> None:
    """Ends what `up` started, the worker first."""
    stopped = [name for name in reversed(NAMES) if _stop(name)]
    profiles = _file("profiles.toml")
    profiles.unlink(missing_ok=True)
    if POINTER.exists() and POINTER.read_text() == POINTER_TEXT.format(profiles=json.dumps(str(profiles))):
        POINTER.unlink()
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
