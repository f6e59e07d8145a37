"""Ops that DeepSpeed compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY


@pytest.mark.parametrize(
    ("op", "load"), [("deepspeed_shm_comm", "load_shared_memory_op"), ("cpu_adam", "load_cpu_adam")]
)
def test_what_a_killed_process_has_left_is_not_waited_for(op: str, load: str) -> None:
    folder = os.environ.get("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions")
    lock = Path(folder, op, "lock")
    lock.touch()
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": folder}
    try:
        subprocess.run(
            [sys.executable, "-c", f"from tasks.workers import compiled_ops as ops; ops.{load}()"],
            cwd=REPOSITORY,
            env=environment,
            timeout=240,
            check=True,
        )
        assert not lock.exists()
    finally:
        lock.unlink(missing_ok=True)
