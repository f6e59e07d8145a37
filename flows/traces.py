"""traces: what the policy wrote, colored by what the judge says of it. Pages for a browser, made from a finished or a
running run's own records.

RUN_DIR/iterations/*/rollouts.parquet ──▶ RUN_DIR/traces/index.html, and pages of at most 50 groups each

Right steps are green, the first wrong one red, what comes after it gray. Open the index in any browser: nothing is
loaded from the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from flows import cli
from tasks.reports.traces import TraceError, iterations_with_rollouts, write_traces


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.traces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="the folder of a run, such as runs/demo/tiny-sgpo-s0-0c05667270",
    )
    parser.add_argument(
        "--iterations", type=_numbers, metavar="N,N,...", help="which iterations, such as 1,10,30 [all that are there]"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the pages go [RUN_DIR/traces]")
    options = parser.parse_args()
    cli.run_and_report(lambda: colored(options.run_dir, options.iterations, options.out))


def colored(run_dir: Path, iterations: Sequence[int] | None, out: Path | None) -> str:
    """Path of the index of the pages."""
    there = iterations_with_rollouts(run_dir)
    if not there:
        raise TraceError(f"no iterations/*/rollouts.parquet in {run_dir}: give the folder of a run")
    chosen = there if iterations is None else iterations
    if missing := sorted(set(chosen) - set(there)):
        raise TraceError(
            f"{run_dir} has no responses of iteration {', '.join(map(str, missing))}: choose from {_short(there)}"
        )
    return str(write_traces(run_dir, chosen, (out or run_dir / "traces").absolute()))


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"iterations are numbers with commas between them, got {text!r}")
    return numbers


def _short(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 7] as "1-3, 7"."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1] + 1]
    ends = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or n + 1 != numbers[i + 1]]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


if __name__ == "__main__":
    main()
