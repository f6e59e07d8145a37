"""The GPUs of this machine, as the driver's own tool tells of them: CUDA is not started for it, which would take
memory of each."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_ASKED = "name,memory.total,memory.free,driver_version"
# The oldest driver for a major version of CUDA (NVIDIA's CUDA compatibility guide).
_OLDEST_DRIVER = {12: 525, 13: 580}


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
