"""sgpo-sweep: a grid of settings x seeds on one set of engines, then a report: is it better, by how much, how sure?

grid x seeds ──▶ run ──▶ run ──▶ ... (those that are complete cost nothing) ──▶ report.html, Prefect, MLflow

The same command again runs only what is missing or has failed, and makes the report anew.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger

from flows import cli
from flows.online import online
from sgpo_core.sweep import SweepConfig, load_sweep, sweep_runs
from tasks.cluster import keep_engines
from tasks.services import home
from tasks.sweep import check_all, publish_table, run_all
from tasks.sweep_report import announce, as_text, publish_report


@flow(name="sgpo-sweep", flow_run_name="{preset}", persist_result=False)
def sweep(preset: str, overrides: list[str] | None = None, fresh: bool = False) -> dict[str, Any]:
    """All runs of a preset in conf/sweep, and their report. `fresh` runs everything again."""
    config = load_sweep(preset, overrides or [])
    runs = sweep_runs(config)
    check_all(runs)
    announce(config)
    with keep_engines():
        results, failed = run_all(config, runs, online, fresh)
    path, comparison = publish_report(config, runs, home() / config.experiment / f"report-{config.tag}")
    table = as_text(comparison)
    publish_table(config, table, str(path))
    get_run_logger().info(f"sweep {config.tag}\n{table}\nreport {path}")
    if not results:
        raise RuntimeError(f"no run of sweep {config.tag} has finished: {next(iter(failed.values()))}")
    return {
        "run_id": config.tag,
        "mlflow_run_id": next(iter(results.values()))["mlflow_run_id"],
        "run_dir": str(path.parent),
        "report": str(path),
        "failed": {f"{arm}/s{seed}": reason for (arm, seed), reason in failed.items()},
        "final_metrics": {
            f"{arm}/s{seed}": result["final_metrics"][f"eval/{config.benchmark}/avg_at_k"]
            for (arm, seed), result in results.items()
        },
        "runs": {f"{arm}/s{seed}": result["run_dir"] for (arm, seed), result in results.items()},
    }


def check(config: SweepConfig) -> None:
    """Everything that can be checked before a run is started."""
    check_all(sweep_runs(config))


if __name__ == "__main__":
    cli.main("sweep", __doc__ or "", "sweep", SweepConfig, load_sweep, sweep, check)
