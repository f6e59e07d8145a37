"""Where things lie: the repository, and the home of all state."""

from __future__ import annotations

import os
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.storage.run_dir import RunPaths

REPOSITORY = Path(__file__).resolve().parents[1]


def home() -> Path:
    """The folder of all state: SGPO_HOME, else runs/ in the repository. Raises ConfigError for a path that can't be
    part of a database's address."""
    folder = Path(os.environ.get("SGPO_HOME") or REPOSITORY / "runs").expanduser().absolute()
    if found := set("?#%\n") & set(str(folder)):
        raise ConfigError(f"SGPO_HOME={str(folder)!r}: it holds {''.join(sorted(found))!r}; choose another folder")
    return folder


def writable_home() -> Path:
    """`home()`, made where it is missing. Raises ConfigError where nothing can be written there, or not into one of its
    databases (SQLite's and Prefect's own errors do not name the file)."""
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(0, "you may not write there")
    except OSError as error:
        raise ConfigError(f"SGPO_HOME={folder} can't be used ({error.strerror}): choose another folder") from None
    names = ["verdicts.db", "prefect/prefect.db"]
    if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        names.append("mlflow.db")
    for database in (folder / name for name in names):
        if database.exists() and not os.access(database, os.W_OK):
            raise ConfigError(f"{database} can't be written: make it writable, or choose another SGPO_HOME")
    return folder


def run_folders(run: str) -> list[Path]:
    """Where a run may lie that the command line names by its folder or by its id; none has to be there."""
    return [Path(run).expanduser(), *(home().glob(f"*/{run}") if "/" not in run else ())]


def run_named(run: str) -> RunPaths:
    """The run of that folder or id. Raises ConfigError where there is none."""
    for paths in map(RunPaths, run_folders(run)):
        if paths.config.is_file():
            return paths
    raise ConfigError(f"{run}: no folder of a run, and no run below {home()} has this id")
