"""Where things lie: the repository, and the home of all state."""

from __future__ import annotations

import os
from pathlib import Path

from sgpo_core.config.base import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]


def home() -> Path:
    """The folder of all state: SGPO_HOME, else runs/ in the repository. Raises ConfigError for a path that can't be
    part of a database's address."""
    folder = Path(os.environ.get("SGPO_HOME") or REPOSITORY / "runs").expanduser().absolute()
    if found := set("?#%\n") & set(str(folder)):
        raise ConfigError(f"SGPO_HOME={str(folder)!r}: it holds {''.join(sorted(found))!r}; choose another folder")
    return folder
