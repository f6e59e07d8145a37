"""demo_memory, demo_seconds: the whole demo (`python -m flows.demo --fresh`) against what a small machine has.

Memory is the largest sum over all its processes, looked at once a second: Ray's daemons and actors, graders, Prefect's
server and the flow itself, however they were started. Each process counts with its PSS (Linux), in which a page that n
processes share counts 1/n for each, so that the sum counts every page once, shared memory included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.figures import Figure
from tasks.paths import REPOSITORY

MARK = "SGPO_BENCH_RUN"  # inherited by everything the demo starts, Ray's daemons too, which lose their parent
INTERVAL_S = 1.0
GIB = 2**30


def measure() -> Iterator[Figure]:
    """Both figures, of one run."""
    copied = copy_warm_starts()
    token = uuid.uuid4().hex
    began = time.monotonic()
    demo = subprocess.Popen(
        [sys.executable, "-m", "flows.demo", "--fresh"],
        cwd=REPOSITORY,
        env=os.environ | {MARK: token},
        stdout=subprocess.DEVNULL,
    )
    try:
        peak, at_s, processes = watch(demo, token)
    finally:
        demo.terminate()
        demo.wait()
    seconds = time.monotonic() - began
    if demo.returncode:
        raise RuntimeError(f"the demo failed with exit status {demo.returncode}")
    start = f"warm starts {'copied' if copied else 'made'}"
    yield Figure(
        figure="demo_memory",
        value=peak / GIB,
        unit="GiB",
        goal=("<=", 8),
        how=f"peak sum of PSS over {processes} processes, sampled every {INTERVAL_S:.0f} s; at {at_s:.0f} s; {start}",
    )
    yield Figure("demo_seconds", seconds, "s", ("<=", 900), f"from command to result; {start}")


def copy_warm_starts() -> bool:
    """Into the bench's home, where the user's has some already; returns whether there were any."""
    source, target = REPOSITORY / "runs/warm-starts", Path(os.environ["SGPO_HOME"]) / "warm-starts"
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    return source.is_dir()


def watch(leader: subprocess.Popen[bytes], token: str) -> tuple[int, float, int]:
    """Until it ends: largest sum of bytes, when that was (s), and of how many processes."""
    began, peak = time.monotonic(), (0, 0.0, 0)
    while leader.poll() is None:
        sizes = [size for pid in family(token) if (size := pss(pid))]
        peak = max(peak, (sum(sizes), time.monotonic() - began, len(sizes)))
        time.sleep(INTERVAL_S)
    return peak


def family(token: str) -> set[int]:
    """Ids of the processes that bear the mark, and of their descendants: Ray's workers set a title of their own, which
    overwrites the environment that can be read from outside."""
    parents, found = {}, set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # ended meanwhile, or another user's
            parents[process.pid] = process.ppid()
            if process.environ().get(MARK) == token:
                found.add(process.pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss(pid: int) -> int:
    """Proportional set size, bytes; 0 once the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
