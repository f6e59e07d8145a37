"""A stage of a run, as a timed Prefect task; and the metrics that the stages of an iteration give."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")
Metrics = dict[str, float]


class IterationMetrics(Metrics):
    """The metrics of the iteration under way. Of a stage that runs several times the seconds add up; of everything else
    the latest value counts."""

    def __iadd__(self, metrics: Metrics) -> IterationMetrics:
        for name, value in metrics.items():
            self[name] = self.get(name, 0.0) + value if name.startswith("time/") else value
        return self


def plain_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A Prefect task, neither retried nor cached: it changes weights or files in place, and what it has done lies on
    the disk. Recovery is from the last checkpoint, or the last file."""
    return task(name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)


def stage(name: str) -> Callable[[Callable[P, Metrics | None]], Task[P, Metrics]]:
    """A `plain_task` that gives its metrics, to which its seconds are added as `time/<name>_s`."""

    def wrap(function: Callable[P, Metrics | None]) -> Task[P, Metrics]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> Metrics:
            began = time.monotonic()
            metrics = function(*args, **kwargs) or {}
            return {**metrics, f"time/{name}_s": time.monotonic() - began}

        return plain_task(name)(timed)

    return wrap
