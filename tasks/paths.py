"""Where things lie: the repository, and the home of all state."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def home() -> Path:
    """The folder of all state: SGPO_HOME, else runs/ in the repository."""
    return Path(os.environ.get("SGPO_HOME") or REPOSITORY / "runs").expanduser().absolute()
