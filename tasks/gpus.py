"""The GPUs of this machine, as the driver's own tool tells of them: CUDA is not started for it, which would take
memory of each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

_ASKED = "name,memory.total,memory.free,driver_version"
# The oldest driver for a major version of CUDA (NVIDIA's CUDA compatibility guide).
_OLDEST_DRIVER = {12: 525, 13: 580}


@dataclass(frozen=True, slots=True)
class Device:
    """memory, free: GiB."""

    name: str
    memory: float
    free: float
    driver: str


def devices() -> list[Device]:
    """Those that the driver shows and CUDA_VISIBLE_DEVICES, if it is a list of numbers, admits; [] where there is no
    driver, or it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines()]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")
    if re.fullmatch(r"\d+(,\d+)*", chosen):
        rows = [rows[number] for number in map(int, chosen.split(",")) if number < len(rows)]
    # A GPU that is cut into parts (MIG) tells no memory of its own.
    return [
        Device(name, float(total) / 1024, float(free) / 1024, driver)
        for name, total, free, driver in (row for row in rows if len(row) == 4)
        if total.isdigit() and free.isdigit()
    ]


def driver_problem(driver: str, cuda: str | None) -> str:
    """What is wrong with a driver for packages that were built for this version of CUDA; "" if nothing is."""
    if cuda is None:
        return "these packages are built for the CPU: `make setup EXTRA=gpu`"
    oldest = _OLDEST_DRIVER.get(int(cuda.split(".")[0]), 0)
    if int(driver.split(".")[0]) >= oldest:
        return ""
    return f"NVIDIA's driver is version {driver}, and these packages (CUDA {cuda}) need {oldest} or newer"
