"""Metrics of several runs beside each other: series, and mean and standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sgpo_core.storage.atomic import read_json


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric of one run: value by iteration."""

    algorithm: str
    seed: int
    values: dict[int, float]


def read_curve(run_dir: Path, algorithm: str, seed: int, metric: str) -> Curve:
    """The metric from the run's metrics.json files; iterations without it are left out."""
    values = {}
    for path in sorted((run_dir / "iterations").glob("*/metrics.json")):
        record = read_json(path)
        if metric in record["metrics"]:
            values[int(record["step"])] = float(record["metrics"][metric])
    return Curve(algorithm, seed, values)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the latter is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def over_seeds(curves: Sequence[Curve]) -> dict[int, tuple[float, float]]:
    """Mean and std by iteration, at the iterations that all curves have."""
    shared = set.intersection(*(set(c.values) for c in curves)) if curves else set()
    return {i: mean_std([c.values[i] for c in curves]) for i in sorted(shared)}
