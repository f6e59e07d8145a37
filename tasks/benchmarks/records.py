"""Where results go: MLflow (a run for each policy, a series for each alias, the version's page) and nights on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgpo_core.config.base import fingerprint
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.evaluation.protocol import Result
from sgpo_core.storage.atomic import read_json, write_json
from tasks.paths import home
from tasks.tracking import registry
from tasks.tracking.policies import Policy
from tasks.tracking.tracker import Tracker, description, source, this_attempt

Results = Mapping[str, Result]


def flat_metrics(results: Results) -> dict[str, float]:
    """As in MLflow."""
    return {name: value for b, result in results.items() for name, value in result.scores.metrics(b).items()}


def results_table(results: Results) -> str:
    """Scores of one policy, a line a benchmark."""
    lines = ["benchmark          n    k  avg@k  ± err   95 % interval    pass@k  maj@k  no answer  cut   length"]
    for name, result in results.items():
        s = result.scores
        lines.append(
            f"{name:<16} {s.problems:>4} {s.k:>4}  {s.avg_at_k:.3f}  {s.stderr:.3f}  {s.interval():<14}   "
            f"{s.pass_at[s.k]:.3f}   {s.maj_at_k:.3f}  {s.no_answer_frac:.3f}      {s.truncated_frac:.3f} "
            f"{s.length_mean:.0f}"
        )
    return "\n".join(lines)


def record_evaluation(config: EvaluationConfig, policy: Policy, results: Results) -> dict[str, Any]:
    """One MLflow run for each policy and set of protocols, and the points of a registered version; what the flow
    returns."""
    ids = {name: result.protocol.id for name, result in results.items()}
    run_id = f"{policy.weights}-{fingerprint(ids)}"
    folder, metrics = home() / "evaluations" / policy.weights, flat_metrics(results)
    tags = {"policy": policy.name, "weights": policy.weights} | {
        f"protocol.{name}": found for name, found in ids.items()
    }
    file = folder / "records" / run_id / "metrics.json"
    tracker = _tracker("benchmark-eval", run_id, file.parent, tags, config)
    if file.exists() and read_json(file)["metrics"] != metrics:  # generated anew, where that is not exact
        file.unlink()
    if policy.version is not None and not file.exists():
        registry.log_version_metrics(policy.version, metrics, 0)
    tracker.record(file, 0, metrics)
    tracker.finish()
    return {
        "run_id": run_id,
        "mlflow_run_id": tracker.run_id,
        "run_dir": str(folder),
        "policy": policy.name,
        "weights": policy.weights,
        "protocols": ids,
        "final_metrics": metrics,
    }


def nights(label: str) -> list[Path]:
    """The records of all nights of a model and alias, oldest first."""
    return sorted(_series(label).glob("[0-9]*.json"))


def last_night(label: str) -> dict[str, Result]:
    """Results by benchmark; none before the first night."""
    files = nights(label)
    records = read_json(files[-1])["results"] if files else {}
    return {name: Result.from_json(record) for name, record in records.items()}


def record_night(config: EvaluationConfig, policy: Policy, results: Results) -> str:
    """A point more in the series of the policy's alias and on the page of its version; returns the MLflow run's id."""
    assert policy.version is not None
    label, metrics = policy.version.label, flat_metrics(results)
    folder, night = _series(label), len(nights(label)) + 1
    tags = {"model": policy.version.model, "alias": policy.version.alias}
    tracker = _tracker("nightly", label, folder, tags, config)
    tracker.log(night, metrics | {"registry/version": float(policy.version.version)})
    tracker.finish()
    registry.log_version_metrics(policy.version, metrics, night)
    kept = {name: result.as_json() for name, result in results.items()}
    write_json(folder / f"{night:06d}.json", {"version": policy.version.version, "results": kept})
    return tracker.run_id


def _series(label: str) -> Path:
    return home() / "evaluations" / "nightly" / label


def _tracker(experiment: str, run_id: str, folder: Path, tags: dict[str, str], config: EvaluationConfig) -> Tracker:
    folder.mkdir(parents=True, exist_ok=True)
    about = "A point a night of" if experiment == "nightly" else "Benchmarks of the policy"
    named = run_id if experiment == "nightly" else tags["policy"]
    tags = (
        tags
        | source("flows/evaluation.py")
        | description(
            f"{about} `{named}`, on {', '.join(config.eval.sets)}. The command is `python -m flows.evaluation`; the "
            "settings are among the parameters."
        )
    )
    return Tracker.open(experiment, run_id, folder, this_attempt(folder), tags, config.model_dump(mode="json"))
