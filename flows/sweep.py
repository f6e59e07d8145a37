"""sgpo-sweep: a grid of settings x seeds on one set of engines, then a report: is it better, by how much, how sure?

grid x seeds ──▶ run ──▶ run ──▶ ... (those that are complete cost nothing) ──▶ report.html, Prefect, MLflow

The same command again runs only what is missing or has failed, and makes the report anew.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("sweep")

from collections.abc import Callable
from typing import Annotated, Any

from prefect import flow, get_run_logger

from flows.deployment import explained, named_by
from flows.offline import check as check_offline
from flows.offline import offline
from flows.online import check as check_online
from flows.online import online
from sgpo_core.config.catalog import one_of
from sgpo_core.config.overrides import Overrides
from sgpo_core.config.sweep import SweepConfig, SweepRun, load_sweep, sweep_runs
from tasks.engines.cluster import keep_engines
from tasks.paths import home
from tasks.sweeps.processes import run_side_by_side
from tasks.sweeps.report import announce, as_text, publish_report
from tasks.sweeps.runs import Failures, Progress, Results, as_result, check_all, forget, publish_table, run_all, whole

FLOWS = {"online": online, "offline": offline}
CHECKS: dict[str, Callable[[Any], None]] = {"online": check_online, "offline": check_offline}


@flow(name="sgpo-sweep", flow_run_name=named_by(load_sweep, "sweep {0.tag}"), persist_result=False)
@explained
def sweep(
    preset: Annotated[str, one_of("sweep")], overrides: Overrides = (), fresh: bool = False, runs_only: bool = False
) -> dict[str, Any]:
    """All runs of a sweep, and their report.

    Args:
        preset: Where the settings come from, a file of conf/sweep.
        overrides: Settings that differ from the preset, each a key=value: seeds=[0,1], grid.algorithm=[grpo,sgpo].
            docs/settings.md lists them.
        fresh: Run again what is complete.
        runs_only: Make no report: so several processes share the runs of a sweep, also from several machines.
    """
    config = load_sweep(preset, overrides)
    runs = sweep_runs(config)
    check_all(runs, CHECKS[config.flow], config.parallel)
    announce(config)
    progress = Progress(config, len(runs))
    if config.parallel > 1:
        if fresh:
            forget(runs)
        run_side_by_side(config, runs, preset, overrides, progress)
    with keep_engines():
        results = run_all(config, runs, FLOWS[config.flow], progress, fresh and config.parallel == 1)
    if runs_only:
        return as_result(config, results, progress.failed)
    return whole(report(config, runs, results, progress.failed))


def report(config: SweepConfig, runs: list[SweepRun], results: Results, failed: Failures) -> dict[str, Any]:
    """Writes and shows the report; RuntimeError when there is no run to report."""
    path, comparison = publish_report(config, runs, home() / config.experiment / f"report-{config.tag}")
    table = as_text(comparison)
    publish_table(config, table, str(path))
    get_run_logger().info(f"sweep {config.tag}\n{table}\nreport {path}")
    if not results:
        raise RuntimeError(f"no run of sweep {config.tag} has finished: {next(iter(failed.values()), 'none was free')}")
    return as_result(config, results, failed) | {"report": str(path), "run_dir": str(path.parent)}


def check(config: SweepConfig) -> None:
    """Everything that can be checked before a run is started."""
    check_all(sweep_runs(config), CHECKS[config.flow], config.parallel)
