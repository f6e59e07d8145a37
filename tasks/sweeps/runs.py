"""The runs of a sweep, one after the other on one set of engines, or in several processes that share the work; what
fails is tried again and reported, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from prefect import get_run_logger, tags

from sgpo_core.config.base import ConfigError
from sgpo_core.config.sweep import SweepConfig, SweepRun
from tasks.engines.cluster import stop_engines
from tasks.failures import PartlyFailed, was_terminated
from tasks.flow_page import FlowPage
from tasks.paths import home
from tasks.preflight import check_parallel
from tasks.run import RunInProgress, finished_result, locked, run_paths, start_over

Result = dict[str, Any]
Results = dict[tuple[str, int], Result]  # by arm and seed
Failures = dict[tuple[str, int], str]  # what a run failed of


class Progress:
    """How far a sweep is, on Prefect's page while it runs, and as lines of the log."""

    def __init__(self, config: SweepConfig, total: int) -> None:
        self.config, self.total, self.started, self.fresh = config, total, time.monotonic(), 0
        self.done: dict[tuple[str, int], float] = {}  # (arm, seed) -> final accuracy
        self.failed: Failures = {}
        self.page = FlowPage(f"sweep-{config.tag}")
        self.page.bar(0.0, self.line())

    def add(self, run: SweepRun, outcome: Result | Exception, ran: bool) -> None:
        """A run has ended; `ran`: in this very sweep (a complete one takes no time, and would spoil the forecast)."""
        if (run.arm, run.seed) in self.done:
            return
        self.fresh += ran
        if isinstance(outcome, Exception):
            self.failed[run.arm, run.seed] = (str(outcome).strip().splitlines() or [type(outcome).__name__])[-1]
        else:
            self.done[run.arm, run.seed] = outcome["final_metrics"][f"eval/{self.config.benchmark}/avg_at_k"]
        ended = len(self.done) + len(self.failed)
        self.page.bar(100.0 * ended / self.total, self.line())
        get_run_logger().info(self.line())

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
    config: SweepConfig, runs: Sequence[SweepRun], online: Callable[..., Result], progress: Progress, fresh: bool
) -> Results:
    """Results of the runs that are complete, by arm and seed; `progress` has what the others failed of. `online` is the
    flow of one run; a run that is complete already costs nothing."""
    results = {}
    for run in runs:
        ran = fresh or finished_result(run_paths(run.config), getattr(run.config, "iterations", 0)) is None
        try:
            outcome = _attempt(run, config, online, fresh)
        except RunInProgress as elsewhere:
            get_run_logger().info(str(elsewhere))
            continue
        progress.add(run, outcome, ran)
        if not isinstance(outcome, Exception):
            results[run.arm, run.seed] = outcome
    return results


def _attempt(run: SweepRun, config: SweepConfig, online: Callable[..., Result], fresh: bool) -> Result | Exception:
    for attempt in range(1, config.attempts + 1):
        try:
            with tags(*_tags(run, config)):
                return online(config.run_preset, list(run.overrides), fresh=fresh)
        except RunInProgress:
            raise
        except ConfigError as error:  # trying again would change nothing
            return error
        except Exception as error:
            if was_terminated(error):
                raise
            get_run_logger().error(f"{run.arm}, seed {run.seed}: try {attempt} of {config.attempts} failed: {error}")
            stop_engines()
            failure = error
    return failure


def _tags(run: SweepRun, config: SweepConfig) -> list[str]:
    """What Prefect's page filters flow runs by; MLflow's tags of a run have the same names."""
    return [f"sweep={config.tag}", f"arm={run.arm}", f"algorithm={run.config.algorithm.name}", f"seed={run.seed}"]


def as_result(config: SweepConfig, results: Results, failed: Failures) -> dict[str, Any]:
    """What the flow hands back of its runs."""
    named = {f"{arm}/s{seed}": result for (arm, seed), result in results.items()}
    metric = f"eval/{config.benchmark}/avg_at_k"
    return {
        "run_id": config.tag,
        "mlflow_run_id": next((result["mlflow_run_id"] for result in named.values()), None),
        "run_dir": str(home() / config.experiment),
        "failed": {f"{arm}/s{seed}": reason for (arm, seed), reason in failed.items()},
        "final_metrics": {name: result["final_metrics"][metric] for name, result in named.items()},
        "runs": {name: result["run_dir"] for name, result in named.items()},
    }


def whole(result: dict[str, Any]) -> dict[str, Any]:
    """The same result; raises PartlyFailed, which holds it, where a run has failed."""
    if failed := result["failed"]:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        total = len(failed) + len(result["runs"])
        raise PartlyFailed(f"{len(failed)} of {total} runs failed ({reasons}); the same sweep runs them again", result)
    return result


def forget(runs: Sequence[SweepRun]) -> None:
    """Removes what is there of the runs, so that they start over."""
    for run in runs:
        paths = run_paths(run.config)
        with locked(paths):
            start_over(paths)


def check_all(runs: Sequence[SweepRun], check: Callable[[Any], None], parallel: int = 1) -> None:
    """Raises ConfigError when what any run needs, or `parallel` of them at a time, is missing; `check` is that of their
    flow."""
    seen, parts = set(), ("model", "cluster", "asked_judge", "responses", "data", "eval", "sampling")
    for run in runs:
        is_done = finished_result(run_paths(run.config), getattr(run.config, "iterations", 0)) is not None
        needs = str([is_done, *(getattr(run.config, part, None) for part in parts)])
        if needs not in seen:
            seen.add(needs)
            check(run.config)
            check_parallel(parallel, run.config.cluster, run.config.asked_judge)


def publish_table(config: SweepConfig, table: str, report: str) -> None:
    """The report's table on the sweep's page in Prefect."""
    markdown = f"```\n{table}\n```\nreport: `{report}`"
    FlowPage(f"sweep-{config.tag}-report").text(markdown)
