"""What a flow run has made, on one page of markdown: its numbers, where they are kept, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def result_page(heading: str, result: Mapping[str, Any], table: str, address: str, following: Sequence[str]) -> str:
    """`table`: as it stands in the log; empty: the final metrics are one. `address`: of the run's page in MLflow, empty
    where no server is up. `following`: commands, each with its purpose, in markdown."""
    numbers = [f"```\n{table}\n```"] if table else _metrics(result["final_metrics"])
    mlflow = f"[MLflow]({address})" if address else f"MLflow (`make up`), run `{result['mlflow_run_id']}`"
    lines = [f"All numbers: {mlflow}", f"Folder: `{result['run_dir']}`", *following]
    return "\n".join([f"# {heading}", "", *numbers, "", *(f"* {line}" for line in lines)])


def _metrics(metrics: Mapping[str, float]) -> list[str]:
    return ["| metric | value |", "| --- | --- |", *(f"| {name} | {value:.4g} |" for name, value in metrics.items())]
