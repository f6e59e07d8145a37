"""A training run on one page of markdown, while it goes on: how far it is, its curves as a table, where the rest is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

_COLUMNS = {"group/all_negative_frac": "all-negative groups", "reward/outcome_mean": "reward"}


def run_page(
    run_dir: Path,
    iterations: int,
    metrics: Mapping[int, Mapping[str, float]],
    mlflow: str,
    address: str,
    restarts: Sequence[tuple[float, str, float]] = (),
) -> str:
    """`metrics`: of the iterations that were evaluated. `mlflow`: where the run is there; `address`: of that page,
    empty where no server is up. `restarts`: when a part of the run was lost (seconds since 1970), what was said of it,
    and how many seconds it took until the run went on."""
    names = [name for values in metrics.values() for name in values if name.endswith("/avg_at_k")]
    columns = {name: f"{name.split('/')[1]} avg@k" for name in names} | _COLUMNS
    rows = [
        [str(iteration), *(f"{values[name]:.3f}" if name in values else "-" for name in columns)]
        for iteration, values in sorted(metrics.items())
    ]
    return "\n".join(
        (
            f"# {run_dir.name}",
            f"Evaluated after iteration {max(metrics)} of {iterations}.\n",
            *_table(["iteration", *columns.values()], rows),
            *_restarts(restarts),
            f"* All curves: {f'[MLflow]({address})' if address else f'MLflow (`make up`), {mlflow}'}",
            f"* Responses in colors: `sgpo traces {run_dir}`",
            f"* Folder: `{run_dir}`",
            "* If the run is interrupted, the same command, or the same deployment, goes on from its last checkpoint.",
        )
    )


def _restarts(restarts: Sequence[tuple[float, str, float]]) -> list[str]:
    """What was lost; nothing where nothing was."""
    rows = [
        [
            f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S}",
            " ".join(what.split()).replace("|", "/"),
            f"{seconds:.0f}",
        ]
        for when, what, seconds in restarts
    ]
    title = "Of this flow run, parts were lost. It started its engines anew and went on from the last checkpoint:\n"
    return [title, *_table(["when (UTC)", "what", "seconds until it went on"], rows)] if rows else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines, and an empty one."""
    return [*(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]
