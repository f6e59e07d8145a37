"""How people and the `prefect` command get to the servers of `make up`: addresses, a profile, the login."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tasks.paths import REPOSITORY, home
from tasks.services.environment import addresses, is_own, pid_file
from tasks.services.login import CLIENT, MLFLOW_PASSWORD, SERVER, kept_login, login_file, write_private
from tasks.services.processes import Record

POINTER = REPOSITORY / "prefect.toml"
POINTER_TEXT = "# Written by `make up`, removed by `make down`.\nprofiles_path = {profiles}\n"


def publish(api: str) -> None:
    """Lets a `prefect` typed in the repository use the server with no variable set: it reads prefect.toml there.

    The address, with the login, is not in that file but in a profile it names, so that `service_environment` can
    replace it: the file outlives a server that dies, and no variable takes an address in prefect.toml back. A
    prefect.toml of the user's is left alone.
    """
    login = _prefect_login(api)
    values = {"PREFECT_API_URL": api} | ({CLIENT: login} if login else {})
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    write_private(_profiles(), "".join(['active = "sgpo"\n[profiles.sgpo]\n', *lines]))
    if not POINTER.exists() or POINTER.read_text().startswith(POINTER_TEXT.splitlines()[0]):
        POINTER.write_text(_pointer())
    else:
        also = f" and {CLIENT}=$(cat {login_file()})" if login else ""
        print(f"{POINTER} is not ours and stays as it is: set PREFECT_API_URL={api}{also} for the prefect command")


def withdraw() -> None:
    """Takes back what `publish` has done."""
    _profiles().unlink(missing_ok=True)
    if POINTER.exists() and POINTER.read_text() == _pointer():
        POINTER.unlink()


def _profiles() -> Path:
    return home() / "services" / "profiles.toml"


def _pointer() -> str:
    return POINTER_TEXT.format(profiles=json.dumps(str(_profiles())))


def _prefect_login(api: str) -> str | None:
    """The login of ours that the server at this address wants, if it does: the user may have chosen another."""
    return kept_login() if is_own(api) and wants_login("prefect") else None


def wants_login(name: str) -> bool:
    """Whether a service that runs was started with the login that we make."""
    record = Record.read(pid_file(name))
    return record is not None and record.login


def is_to_want_login(name: str) -> bool:
    """Whether it would be now: of these variables the user may have set some."""
    chosen = {"prefect": {SERVER, CLIENT}, "mlflow": {MLFLOW_PASSWORD}}
    return name in chosen and not chosen[name] & os.environ.keys()


def show_what_is_up(api: str) -> None:
    """Where the pages are, how to log in, and what to do next. A password is for a terminal, and not for a log."""
    mlflow, login = addresses().get("mlflow"), kept_login() or ""
    if sys.stdout.isatty():
        user, _, password = login.partition(":")
        prefects, mlflows = f"password {login}", f"user {user}, password {password}"
    else:
        prefects = mlflows = f"the login is in {login_file()}"
    prefects = f"   {prefects}" if _prefect_login(api) else ""
    mlflows = f"   {mlflows}" if mlflow and wants_login("mlflow") else ""
    mlflow = mlflow or f"{os.environ['MLFLOW_TRACKING_URI']} (MLFLOW_TRACKING_URI)"
    print(f"\n  Prefect  {api.removesuffix('/api')}{prefects}\n  MLflow   {mlflow}{mlflows}\n")
    run = f"{os.path.relpath(sys.prefix, REPOSITORY)}/bin/prefect deployment run sgpo-online/tiny --watch"
    print(f"next:  {run}\n       {run} -p overrides='[\"algorithm=grpo\"]'\n       make down")
