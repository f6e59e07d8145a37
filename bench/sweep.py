"""sweep: six runs of the miniature as one sweep (`python -m flows.sweep grpo-vs-sgpo-tiny`) against what cannot be
saved: one start-up, and the seconds of every run's iterations and evaluations.

What is between is the price of the sweep: opening and finishing runs, checkpoints, fresh weights, the report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.workload import run_module

ITERATIONS = 20


def measure() -> Iterator[Figure]:
    run_module("flows.warm_start", "tiny")  # kept by its settings, and no part of the sweep
    began = time.time()
    result = run_module("flows.sweep", "grpo-vs-sgpo-tiny", f'overrides=["iterations={ITERATIONS}"]')
    whole = time.time() - began
    records = [_records(Path(folder)) for folder in result["runs"].values()]
    first = min((record for run in records for record in run), key=lambda r: r["timestamp_ms"])
    start_up = first["timestamp_ms"] / 1000 - first["metrics"]["time/iteration_s"] - began
    at_work = sum(record["metrics"]["time/iteration_s"] for run in records for record in run)
    yield Figure(
        figure="sweep",
        value=whole,
        unit="s",
        goal=(">=", 1 / 1.15),
        peer=start_up + at_work,
        ratio=(start_up + at_work) / whole,
        how=f"limit: one start-up ({start_up:.0f} s) and the iterations and evaluations of {len(records)} runs of "
        f"{ITERATIONS} iterations ({at_work:.0f} s)",
    )


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("iterations/*/metrics.json"))]
