"""One-step-off generation (async_level=1): engines sample the responses of the next iteration while ranks train on this
one's. An engine takes new weights only between two iterations' responses: all of an iteration are of one policy, and a
run can be repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.futures import PrefectFuture

from tasks.engines.cluster import stop_engines
from tasks.engines.faults import EngineLost
from tasks.rollout import generate
from tasks.run import Run
from tasks.stage import Metrics, plain_task


class Ahead:
    """The generation of one iteration, in a thread of Prefect's. At level 0 nothing is begun."""

    def __init__(self, run: Run) -> None:
        self._run, self._begun = run, 0
        self._under_way: PrefectFuture[Metrics] | None = None
        self._abandoned = threading.Event()

    def begin(self, iteration: int) -> None:
        """Samples this iteration's responses by the policy that the engines hold; nothing where that has begun, or
        there is no such iteration."""
        if self._run.async_level and self._begun < iteration <= self._run.iterations:
            assert self._under_way is None
            self._begun, self._under_way = iteration, _generate.submit(self._run, iteration, self._abandoned)

    def end(self) -> Metrics:
        """Waits until the engines are done. Raises what their generation has raised."""
        if self._under_way is None:
            return {}
        began = time.monotonic()
        try:
            metrics = self._under_way.result()
        except Exception:  # of the generation: it has ended. After Ctrl-C or SIGTERM it goes on: see `abandon`
            self._under_way = None
            raise
        self._under_way = None
        return {**metrics, "time/wait_ahead_s": time.monotonic() - began}

    def abandon(self) -> None:
        """Ends the engines, so that what is under way does not go on for minutes."""
        if self._under_way is not None:
            self._abandoned.set()
            stop_engines()
            self._under_way.wait()


@plain_task("generate")
def _generate(run: Run, iteration: int, abandoned: threading.Event) -> Metrics:
    try:
        metrics = generate.fn(run, iteration, behind=1)
        return {"time/generate_ahead_s": metrics.pop("time/generate_s"), **metrics}
    except EngineLost:
        if abandoned.is_set():  # an end that was wanted is no failure
            return {}
        raise


@contextmanager
def generating_ahead(run: Run) -> Iterator[Ahead]:
    """Leaves nothing under way."""
    ahead = Ahead(run)
    try:
        yield ahead
    finally:
        ahead.abandon()
