"""MLflow's SQLite file, which appears whole or not at all.

MLflow makes it in place, in many steps. Where they are cut short (kill -9, a full disk, a lock), it can't be used, and
MLflow can't mend it: the next start ends with "already exists".
"""

from __future__ import annotations

import os
from pathlib import Path

from sgpo_core.storage.atomic import waiting_lock, write_atomically

_SQLITE = "sqlite:///"


def make_database(uri: str) -> None:
    """Makes the database at this address if it is a file of SQLite that is missing."""
    path = Path(uri.removeprefix(_SQLITE))
    if uri.startswith(_SQLITE) and not path.exists():
        with waiting_lock(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                write_atomically(path, _make)


def _make(path: Path) -> None:
    from mlflow.db import upgrade  # `mlflow db upgrade`

    path.unlink(missing_ok=True)  # of an attempt that was cut short
    upgrade.main([f"{_SQLITE}{path}"], standalone_mode=False)


if __name__ == "__main__":  # before a server starts
    make_database(os.environ["MLFLOW_TRACKING_URI"])
