"""traces: what the policy wrote, colored by what the judge says of it. Pages for a browser, made from a finished or a
running run's own records.

RUN_DIR/iterations/*/rollouts.parquet ──▶ RUN_DIR/traces/index.html, and pages of at most 50 groups each

Right steps are green, the first wrong one red, what comes after it gray. Open the index in any browser: nothing is
loaded from the network.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("traces")

from collections.abc import Sequence
from pathlib import Path

from tasks.reports.traces import TraceError, iterations_with_rollouts, write_traces


def colored(run_dir: str, iterations: Sequence[int] | None, out: Path | None) -> None:
    """Writes the pages and prints the path of their index."""
    run = Path(run_dir)
    there = iterations_with_rollouts(run)
    if not there:
        raise TraceError(f"no iterations/*/rollouts.parquet in {run}: give the folder of a run")
    chosen = there if iterations is None else iterations
    if missing := sorted(set(chosen) - set(there)):
        raise TraceError(
            f"{run} has no responses of iteration {', '.join(map(str, missing))}: choose from {_short(there)}"
        )
    print(write_traces(run, chosen, (out or run / "traces").absolute()))


def _short(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 7] as "1-3, 7"."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1] + 1]
    ends = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or n + 1 != numbers[i + 1]]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
