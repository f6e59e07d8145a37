"""report_seconds: the report of a sweep of 100 runs x 200 iterations, from MLflow on SQLite to HTML.

The runs are made up (ten arms, ten seeds, a curve each): what is measured is reading, comparing and drawing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from sgpo_core.config.sweep import SweepConfig, load_sweep, sweep_runs
from tasks.paths import home
from tasks.sweeps.report import METRICS, publish_report
from tasks.tracking.tracker import Tracker, new_attempt, run_tags

ITERATIONS = 200
OVERRIDES = [
    "+grid={algorithm.credit.beta: [1,2,3,4,5,6,7,8,9,10]}",
    "grid.algorithm=[sgpo]",
    "seeds=[0,1,2,3,4,5,6,7,8,9]",
    'baseline="sgpo beta=1"',
    f'overrides=["iterations={ITERATIONS}"]',
]


def measure() -> Iterator[Figure]:
    config = load_sweep("grpo-vs-sgpo-tiny", OVERRIDES)
    fill(config)
    began = time.monotonic()
    path, comparison = publish_report(config, sweep_runs(config), home() / "report")
    seconds = time.monotonic() - began
    runs = sum(row.runs for row in comparison.arms)
    yield Figure(
        figure="report_seconds",
        value=seconds,
        unit="s",
        goal=("<=", 30),
        how=f"{runs} runs x {ITERATIONS} iterations x {len(METRICS) + 1} metrics; {path.stat().st_size >> 20} MiB",
    )


def fill(config: SweepConfig) -> None:
    """All runs of the sweep, finished, in the tracking server."""
    rng, metric = random.Random(0), f"eval/{config.benchmark}/avg_at_k"
    for run in sweep_runs(config):
        settings = run.config.model_dump(mode="json")
        tags = run_tags(run.config)
        tracker = Tracker.open(config.experiment, run.config.run_id, Path(home()), new_attempt(), tags, settings)
        for iteration in range(1, ITERATIONS + 1):
            tracker.log(iteration, {name: rng.random() for name in (*METRICS, metric)})
        tracker.finish()
