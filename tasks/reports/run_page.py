"""A training run on one page of markdown, while it goes on: how far it is, its curves as a table, where the rest is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_COLUMNS = {"group/all_negative_frac": "all-negative groups", "reward/outcome_mean": "reward"}


def run_page(
    run_dir: Path, iterations: int, metrics: Mapping[int, Mapping[str, float]], mlflow: str, address: str
) -> str:
    """`metrics`: of the iterations that were evaluated. `mlflow`: where the run is there; `address`: of that page,
    empty where no server is up."""
    names = [name for values in metrics.values() for name in values if name.endswith("/avg_at_k")]
    columns = {name: f"{name.split('/')[1]} avg@k" for name in names} | _COLUMNS
    rows = [["iteration", *columns.values()], ["---"] * (1 + len(columns))]
    rows += [
        [str(iteration), *(f"{values[name]:.3f}" if name in values else "-" for name in columns)]
        for iteration, values in sorted(metrics.items())
    ]
    return "\n".join(
        (
            f"# {run_dir.name}",
            f"Evaluated after iteration {max(metrics)} of {iterations}.\n",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"* All curves: {f'[MLflow]({address})' if address else f'MLflow (`make up`), {mlflow}'}",
            f"* Responses in colors: `sgpo traces {run_dir}`",
            f"* Folder: `{run_dir}`",
            "* If the run is interrupted, the same command, or the same deployment, goes on from its last checkpoint.",
        )
    )
