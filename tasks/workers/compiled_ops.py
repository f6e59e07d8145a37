"""DeepSpeed's compiled operations, loaded so that a kill leaves nothing that later starts would wait for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sgpo_core.storage.atomic import waiting_lock


def load_shared_memory_op() -> None:
    """What ranks on the CPU talk by; DeepSpeed then finds it loaded."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    if get_accelerator().device_name() == "cpu":
        _load("deepspeed_shm_comm", build_shm_op)


def load_cpu_adam() -> None:
    """AdamW for an optimizer in host memory; DeepSpeed then finds it loaded."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    _load("cpu_adam", CPUAdamBuilder().load)


def _load(op: str, load: Callable[[], Any]) -> None:
    """torch marks the folder of an op with a file while it is at work there, and waits for the end of such a file for
    ever: also where its process was killed. In a lock that the kernel releases with its process, a file that is there
    is of a process that is gone."""
    folder = os.environ.get("TORCH_EXTENSIONS_DIR")  # tasks/services/environment.py sets it
    if folder is None:
        return
    with waiting_lock(Path(folder) / ".loading"):
        (Path(folder) / op / "lock").unlink(missing_ok=True)
        load()
