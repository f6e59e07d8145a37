"""What a run has left, as tables of pandas, for people who look at it from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sgpo_core.config.base import ConfigError
from sgpo_core.storage.atomic import read_json
from sgpo_core.storage.run_dir import RunPaths
from tasks.paths import run_named
from tasks.reports.traces import iterations_with_rollouts

RunName = Mapping[str, Any] | str | Path


def metrics(run: RunName) -> pd.DataFrame:
    """One row an iteration (index `iteration`, 0: before the first update), one column a metric (docs/metrics.md); NaN
    where an iteration has no such metric. `run`: a flow's result, a run's id, or its folder. Raises ConfigError where
    there is no such run."""
    paths = _paths(run)
    found = {int(file.parent.name): read_json(file)["metrics"] for file in paths.root.glob("iterations/*/metrics.json")}
    return pd.DataFrame.from_dict(found, orient="index").sort_index().rename_axis("iteration")


def responses(run: RunName, iteration: int | None = None) -> pd.DataFrame:
    """One row a response of that iteration (the last complete one where none is given): problem, text, grade, verdict,
    reward, advantage, tokens. `run`: as for `metrics`. Raises ConfigError where there are none."""
    paths = _paths(run)
    there = iterations_with_rollouts(paths.root)
    complete = [number for number in there if paths.metrics(number).is_file()]
    chosen = iteration if iteration is not None else max(complete, default=0)
    if chosen not in there:
        raise ConfigError(f"{paths.root} has no responses of iteration {chosen}; it has those of {there}")
    return pd.read_parquet(paths.rollouts(chosen))


def _paths(run: RunName) -> RunPaths:
    return run_named(str(run["run_dir"] if isinstance(run, Mapping) else run))
