"""report: the report of a sweep, made again from what MLflow has; nothing is run.

Of a sweep in progress, or of one that was stopped, it says what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flows import cli
from sgpo_core.config import presets
from sgpo_core.sweep import load_sweep, sweep_runs
from tasks.services import home
from tasks.sweep_report import as_text, publish_report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", required=True, metavar="NAME", help=f"one of: {', '.join(presets('sweep'))}")
    parser.add_argument("--out", type=Path, help="folder for its files [beside the sweep's runs]")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="those that the sweep was run with, if any")
    options = parser.parse_args()
    cli.run_and_report(lambda: report(options.sweep, options.overrides, options.out))


def report(sweep: str, overrides: list[str], out: Path | None) -> str:
    """The table, and where the whole report lies."""
    config = load_sweep(sweep, overrides)
    sweep_runs(config)  # a wrong override is told here, and not by an empty report
    path, comparison = publish_report(config, out or home() / config.experiment / f"report-{config.tag}")
    return f"{as_text(comparison)}\n\nreport {path}"


if __name__ == "__main__":
    main()
