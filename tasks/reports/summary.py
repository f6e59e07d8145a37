"""What a flow has made, for a person: a few lines in place of its result, which is one long line of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_METRICS = ("/avg_at_k", "group/all_negative_frac", "warm_start/", "judge_training/")  # of many; MLflow has them all


def summary(result: Mapping[str, Any]) -> str:
    """Its name, what matters most of its metrics, what has failed, and where everything is."""
    return "\n".join(f"{name:<11} {text}" for name, text in _lines(result) if text)


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    iterations = f" ({result['iterations']} iterations)" if "iterations" in result else ""
    yield "run", f"{result['run_id']}{iterations}"
    yield "policy", result.get("policy", "")
    if "f1" in result:
        yield "F1", f"{result['f1']:.3f}" if result["f1"] is not None else "-"
    metrics = {name: value for name, value in result["final_metrics"].items() if isinstance(value, float)}
    for name, value in metrics.items():
        if any(part in name for part in _METRICS):
            yield "metric", f"{name} {value:.3f}"
    for name, why in result.get("failed", {}).items():
        yield "failed", f"{name}: {why}"
    for name in result.get("regressions", []):
        yield "regression", name
    yield "report", result.get("report", "")
    yield "folder", result["run_dir"]
    yield "MLflow", f"run {result['mlflow_run_id']}" if result["mlflow_run_id"] else ""
    if iterations:
        yield "responses", f"sgpo traces {result['run_dir']}"
