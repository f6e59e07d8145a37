"""Ops that DeepSpeed compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import REPOSITORY

LOAD = "from tasks.workers.compiled_ops import load_shared_memory_op as load; load()"


def test_what_a_killed_process_has_left_is_not_waited_for() -> None:
    folder = os.environ.get("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions")
    lock = Path(folder, "deepspeed_shm_comm/lock")
    lock.touch()
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": folder}
    try:
        subprocess.run([sys.executable, "-c", LOAD], cwd=REPOSITORY, env=environment, timeout=240, check=True)
        assert not lock.exists()
    finally:
        lock.unlink(missing_ok=True)
