"""Prefect flows: wiring, no logic. Each runs as `python -m flows.NAME` and as a deployment (prefect.yaml)."""

import os
from pathlib import Path

from tasks.services import environment

# Prefect reads its settings when it is imported, which every module of this package does first thing.
os.environ.update(environment())
# A line an iteration is news, one for each task's state is not.
os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL", "WARNING")
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
