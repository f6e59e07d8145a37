"""Who may use the servers: one user, with a password that is made here and that other users of the machine can't read.

A password is handed on by the environment alone, never by a command line, which everybody on the machine can read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import MutableMapping
from configparser import ConfigParser
from functools import partial
from pathlib import Path

from sgpo_core.storage.atomic import write_atomically
from tasks.paths import home

SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"  # what it wants, and what they send
MLFLOW_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
USER = "sgpo"


def new_login() -> str:
    """USER:PASSWORD, as Prefect writes it, with a password that nobody has seen."""
    return f"{USER}:{secrets.token_urlsafe()}"


def login_file() -> Path:
    """Where the login of the servers of `make up` is kept."""
    return home() / "services" / "login"


def kept_login() -> str | None:
    """The login of the servers of `make up`, if one was made."""
    try:
        return login_file().read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def make_login() -> str:
    """The login of the servers of `make up`; it is made once."""
    if (login := kept_login()) is None:
        login = new_login()
        write_private(login_file(), f"{login}\n")
    return login


def set_login(variables: MutableMapping[str, str], login: str) -> None:
    """Has Prefect's server want this login, and its clients send it.

    What the user has set for one of them holds for both, in place of it. If it is empty, there is no password.
    """
    chosen = [variables[name] for name in (SERVER, CLIENT) if name in variables]
    for name in (SERVER, CLIENT):
        variables.setdefault(name, chosen[0] if chosen else login)
    if not variables[SERVER]:
        del variables[SERVER]  # Prefect would want an empty password, which its clients do not send


def mlflow_login(login: str) -> dict[str, str]:
    """The variables by which `mlflow server --app-name basic-auth` wants this login.

    MLflow stores its users, and would ask for the first password for ever: they are made anew with every start.
    """
    user, _, password = login.partition(":")
    users, settings = home() / "services" / "mlflow-users.db", home() / "services" / "mlflow-login.ini"
    users.unlink(missing_ok=True)
    parser = ConfigParser(interpolation=None)
    parser["mlflow"] = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": f"sqlite:///{users}",
        "auth_cache_ttl_seconds": "3600",  # without it every request takes half a second, to check the password
    }
    with settings.open("w", encoding="utf-8") as file:
        parser.write(file)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": user,
        MLFLOW_PASSWORD: password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",  # pages for which MLflow has no rule want the password too
    }


def write_private(path: Path, text: str) -> None:
    """A file that nobody but its user can read, from its first moment on; whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)  # of an attempt that was cut short
        with open(temporary, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
            file.write(text)

    write_atomically(path, write)
