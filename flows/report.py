"""report: the report of a sweep, made again from what MLflow has; nothing is run.

Of a sweep in progress, or of one that was stopped, it says what is missing.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("report")

from pathlib import Path

from sgpo_core.config.sweep import sweep_runs
from tasks.paths import home
from tasks.services.environment import prepare_process
from tasks.sweeps.report import announced, as_text, publish_report


def report(sweep: str, out: Path | None) -> None:
    """Prints the table, and where the whole report lies."""
    prepare_process()  # says where MLflow is
    config = announced(sweep)
    path, comparison = publish_report(
        config, sweep_runs(config), out or home() / config.experiment / f"report-{config.tag}"
    )
    print(f"{as_text(comparison)}\n\nreport {path}")
