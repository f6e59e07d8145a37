"""The GPUs of this machine, as the driver's own tool tells of them (CUDA is not started for it, which would take memory
of each), and whether they are enough."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.run import TrainingConfig
from sgpo_core.config.training import ClusterSettings

_ASKED = "name,memory.total,memory.free,driver_version"
# The oldest driver for a major version of CUDA (NVIDIA's CUDA compatibility guide).
_OLDEST_DRIVER = {12: 525, 13: 580}
# One of them is there wherever there is a GPU: of NVIDIA's driver, of Windows' in its Linux, of AMD's.
_DEVICE_FILES = tuple(map(Path, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))


@dataclass(frozen=True, slots=True)
class Device:
    """number: as nvidia-smi shows it; memory, free: GiB."""

    number: int
    name: str
    memory: float
    free: float
    driver: str


def devices() -> list[Device]:
    """Those that the driver shows and CUDA_VISIBLE_DEVICES admits; [] where that is no list of numbers, where there is
    no driver, or it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = {number: [cell.strip() for cell in line.split(",")] for number, line in enumerate(told.splitlines())}
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        numbers = chosen.replace(" ", "").split(",")
        rows = {int(n): rows[int(n)] for n in numbers if n.isdecimal() and int(n) in rows}
    # A GPU that is cut into parts (MIG) tells no memory of its own.
    return [
        Device(number, row[0], float(row[1]) / 1024, float(row[2]) / 1024, row[3])
        for number, row in rows.items()
        if len(row) == 4 and row[1].isdecimal() and row[2].isdecimal()
    ]


def driver_problem(driver: str, cuda: str | None) -> str:
    """What is wrong with a driver for packages that were built for this version of CUDA; "" if nothing is."""
    if cuda is None:
        return "these packages are built for the CPU: `make setup EXTRA=gpu`"
    oldest = _OLDEST_DRIVER.get(int(cuda.split(".")[0]), 0)
    if int(driver.split(".")[0]) >= oldest:
        return ""
    return f"NVIDIA's driver is version {driver}, and these packages (CUDA {cuda}) need {oldest} or newer"


def count_gpus() -> int:
    """GPUs that CUDA shows to this process. Without a driver it is known at once; torch takes seconds to import."""
    if not any(file.exists() for file in _DEVICE_FILES):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_gpus(config: TrainingConfig) -> None:
    """Raises ConfigError where this machine has too few GPUs for a run, before anything large is imported: the whole
    check (tasks/preflight.py) begins with the same."""
    if missing := missing_gpus(config.cluster, config.asked_judge):
        raise ConfigError(f"preset {config.preset} needs {missing[0]}")


def missing_gpus(cluster: ClusterSettings, judge: JudgeSettings | None) -> list[str]:
    """Of a run with this judge; None: of an evaluation, which has neither judge nor trainers. On a cluster they are
    counted when engines start."""
    judges = judge.gpus if judge else 0
    wanted = cluster.gpus + judges if judge else cluster.rollout_actors * cluster.rollout_gpus
    if not wanted or os.environ.get("RAY_ADDRESS") or wanted <= (gpus := count_gpus()):
        return []
    found = str(gpus) if gpus else f"0{_why_none()}"
    ranks = f" and {cluster.trainer_ranks} trainer ranks x {cluster.trainer_gpus}" if judge else ""
    return [
        f"{wanted} GPUs: {cluster.rollout_actors} rollout engines x {cluster.rollout_gpus}{ranks}"
        f"{f', {judges} for the judge' if judges else ''} (found {found}); RAY_ADDRESS names a cluster that has them, "
        "cluster=... another layout"
    ]


def _why_none() -> str:
    """Why CUDA shows no GPU where the driver shows some; "" where there is none."""
    if not (seen := devices()):
        return ""
    import torch

    problem = driver_problem(seen[0].driver, torch.version.cuda)
    return f"; {problem}" if problem else ""
