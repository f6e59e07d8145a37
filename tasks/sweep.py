"""The runs of a sweep, one after the other on one set of engines; what fails is tried again and reported, and the rest
goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from sgpo_core.config import ConfigError
from sgpo_core.sweep import SweepConfig, SweepRun
from tasks.cluster import stop_engines
from tasks.planning import check_resources
from tasks.run import finished_result, run_paths

Result = dict[str, Any]


class Progress:
    """How far a sweep is, as Prefect artifacts that its page shows while it runs, and as lines of the log."""

    def __init__(self, config: SweepConfig, total: int) -> None:
        self.config, self.total, self.started, self.fresh = config, total, time.monotonic(), 0
        self.done: dict[tuple[str, int], float] = {}  # (arm, seed) -> final accuracy
        self.failed: dict[tuple[str, int], str] = {}
        self.bar: UUID | None = None
        self._show(0.0)

    def add(self, run: SweepRun, outcome: Result | Exception, ran: bool) -> None:
        """A run has ended; `ran`: in this very sweep (a complete one takes no time, and would spoil the forecast)."""
        self.fresh += ran
        if isinstance(outcome, Exception):
            self.failed[run.arm, run.seed] = (str(outcome).strip().splitlines() or [type(outcome).__name__])[-1]
        else:
            self.done[run.arm, run.seed] = outcome["final_metrics"][f"eval/{self.config.benchmark}/avg_at_k"]
        ended = len(self.done) + len(self.failed)
        self._show(100.0 * ended / self.total)
        get_run_logger().info(self.line())

    def _show(self, percent: float) -> None:
        try:
            if self.bar is None:
                bar = create_progress_artifact(percent, key=_key(self.config.tag), description=self.line())
                assert isinstance(bar, UUID)  # a coroutine only in asynchronous callers
                self.bar = bar
            else:
                update_progress_artifact(self.bar, percent, description=self.line())
        except Exception as error:  # whatever keeps Prefect from showing it, the sweep goes on
            get_run_logger().warning(f"the sweep's progress could not be shown: {error}")

    def line(self) -> str:
        """done / failed / left, the best so far, and the time that is left."""
        left = self.total - len(self.done) - len(self.failed)
        parts = [f"{len(self.done)} of {self.total} runs done", f"{len(self.failed)} failed"]
        if self.done:
            (arm, seed), best = max(self.done.items(), key=lambda item: item[1])
            parts.append(f"best so far {arm} (seed {seed}) {best:.3f}")
        if self.fresh and left:
            each = (time.monotonic() - self.started) / self.fresh
            parts.append(f"about {timedelta(seconds=round(each * left))} left")
        return " | ".join(parts)


def run_all(
    config: SweepConfig, runs: Sequence[SweepRun], online: Callable[..., Result], fresh: bool = False
) -> tuple[dict[tuple[str, int], Result], dict[tuple[str, int], str]]:
    """(results of the runs that are complete, what the others failed of), by arm and seed. `online` is the flow of one
    run; a run that is complete already costs nothing."""
    progress, results = Progress(config, len(runs)), {}
    for run in runs:
        ran = fresh or finished_result(run_paths(run.config)) is None
        outcome = _attempt(run, config, online, fresh)
        progress.add(run, outcome, ran)
        if not isinstance(outcome, Exception):
            results[run.arm, run.seed] = outcome
    return results, progress.failed


def _attempt(run: SweepRun, config: SweepConfig, online: Callable[..., Result], fresh: bool) -> Result | Exception:
    for attempt in range(1, config.attempts + 1):
        try:
            return online(config.run_preset, list(run.overrides), fresh=fresh)
        except ConfigError as error:  # trying again would change nothing
            return error
        except Exception as error:
            get_run_logger().error(f"{run.arm}, seed {run.seed}: try {attempt} of {config.attempts} failed: {error}")
            stop_engines()
            failure = error
    return failure


def check_all(runs: Sequence[SweepRun]) -> None:
    """Raises ConfigError when the resources of any run are missing."""
    seen = set()
    for run in runs:
        needs = run.config.model, run.config.cluster
        if str(needs) not in seen:
            seen.add(str(needs))
            check_resources(run.config)


def publish_table(config: SweepConfig, table: str, report: str) -> None:
    """The report's table on the sweep's page in Prefect."""
    markdown = f"```\n{table}\n```\nreport: `{report}`"
    create_markdown_artifact(markdown, key=f"{_key(config.tag)}-report", description=f"sweep {config.tag}")


def _key(tag: str) -> str:
    """Prefect's artifact keys are lower-case letters, digits and dashes."""
    return "sweep-" + "".join(c if c.isalnum() and c.isascii() else "-" for c in tag.lower())
