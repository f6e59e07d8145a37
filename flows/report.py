"""report: the report of a sweep, made again from what MLflow has; nothing is run.

Of a sweep in progress, or of one that was stopped, it says what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flows import cli
from sgpo_core.config.sweep import sweep_runs
from tasks.paths import home
from tasks.sweeps.report import announced, as_text, publish_report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", required=True, metavar="NAME", help="the sweep's tag in MLflow")
    parser.add_argument("--out", type=Path, help="folder for its files [beside the sweep's runs]")
    options = parser.parse_args()
    cli.run_and_report(lambda: report(options.sweep, options.out))


def report(sweep: str, out: Path | None) -> str:
    """The table, and where the whole report lies."""
    config = announced(sweep)
    path, comparison = publish_report(
        config, sweep_runs(config), out or home() / config.experiment / f"report-{config.tag}"
    )
    return f"{as_text(comparison)}\n\nreport {path}"


if __name__ == "__main__":
    main()
