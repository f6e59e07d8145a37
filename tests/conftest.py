"""Shared by all tests: one home for what they write, one small policy, one set of engines."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_HOME = Path(tempfile.mkdtemp(prefix="sgpo-tests-"))
os.environ["SGPO_HOME"] = str(_HOME)  # before tasks and flows are imported
_PREFECT = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
for name in ("MLFLOW_TRACKING_URI", *_PREFECT):
    os.environ.pop(name, None)
# Fuzzing (tests/fuzz): the same cases every time, or more of them, and others, by --hypothesis-profile=long.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(_HOME / "hypothesis")  # not in the repository
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]  # on a busy machine
_COMMON = settings(database=None, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("short", _COMMON, max_examples=500, derandomize=True)
settings.register_profile("long", _COMMON, max_examples=20_000, derandomize=False, print_blob=True)
settings.load_profile("short")


def pytest_unconfigure() -> None:
    # Prefect's server says good-bye to a stream that pytest has closed by then; the traceback would hide the summary.
    logging.raiseExceptions = False
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def session_home() -> Path:
    return _HOME


@pytest.fixture(scope="session")
def engines(session_home: Path) -> Iterator[None]:
    """Engines started by any test stay up for the others."""
    from tasks.engines.cluster import keep_engines
    from tasks.services.environment import prepare_process

    prepare_process()

    with keep_engines():
        yield


@pytest.fixture(scope="session")
def policy(engines: None) -> str:
    """Folder of a policy that knows the format and makes most of the errors that there are."""
    from flows.warm_start import warm_start

    overrides = ["curriculum=[{steps: 300, slip_rate: 0.3}]", "gate_agreement=0", "gate_samples=64"]
    return str(warm_start("tiny", overrides)["run_dir"])


@pytest.fixture(scope="session")
def trained_judge(policy: str) -> str:
    """Folder of a judge that has learnt something, though not much."""
    from flows.judge_training import judge_training
    from tests.helpers import quick_judge

    return str(judge_training("tiny", quick_judge(policy))["run_dir"])
