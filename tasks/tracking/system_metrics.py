"""What the machine does while a run goes on, in MLflow: the tab *System metrics* of the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics import system_metrics_monitor

from tasks.tracking.server import tracking_uri


@contextmanager
def system_metrics(run_id: str) -> Iterator[None]:
    """MLflow's own monitor, in a thread: CPU, memory, disk, network and NVIDIA GPUs of this machine, every ten seconds.
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns it off. It ends, with a warning, at the first point that the server
    does not take; no run depends on it."""
    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set() and not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.WARNING)  # it reports its start
    monitor = system_metrics_monitor.SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=tracking_uri())
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
