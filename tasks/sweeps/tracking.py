"""A sweep in MLflow: its runs read back for the report, and the summary run that holds settings and report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from sgpo_core.analysis.comparison import RunRecord
from tasks.tracking.server import MlflowClient, experiment_named, let_in, open_client, tracking_uri
from tasks.tracking.tracker import MlflowRun, description, git_commit, source, yaml_artifact


def sweep_records(sweep: str, run_ids: Collection[str], metrics: Sequence[str]) -> list[RunRecord]:
    """Those of these runs that have this sweep tag, in any experiment, with the curves of these metrics. Of several
    MLflow runs of one run a finished one counts, else the newest. (Runs of other settings may bear the same tag, arm
    and seed: only a run's id stands for its settings.)"""
    client = open_client()
    experiments = [e.experiment_id for e in client.search_experiments()]
    query = f"tags.sweep = '{sweep}'"
    runs = client.search_runs(experiments, query, max_results=5000, order_by=["attributes.start_time ASC"])
    chosen: dict[str, MlflowRun] = {}
    for run in runs:
        run_id = run.data.tags.get("run_id", "")
        known = chosen.get(run_id)
        if run_id in run_ids and (known is None or known.info.status != "FINISHED" or run.info.status == "FINISHED"):
            chosen[run_id] = run
    return [_record(client, run, metrics) for run in chosen.values()]


def _record(client: MlflowClient, run: MlflowRun, metrics: Sequence[str]) -> RunRecord:
    tags, finished = run.data.tags, run.info.status == "FINISHED"
    return RunRecord(
        run_id=tags["run_id"],
        arm=tags["arm"],
        seed=int(tags["seed"]),
        finished=finished,
        settings=dict(_flat(yaml_artifact(run, "config.yaml"))) if finished else {},
        curves={
            name: {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
            for name in metrics
            if name in run.data.metrics
        },
        status=f"failed: {tags['error']}"
        if run.info.status == "FAILED" and "error" in tags
        else run.info.status.lower(),
    )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def open_summary(experiment: str, sweep: str, settings: dict[str, Any]) -> str:
    """The id of the sweep's one summary run, which holds its settings and its report. It has no `sweep` tag: the chart
    page groups runs by that, and the summary has no curves."""
    client = open_client()
    with let_in(f"experiment={experiment}"):
        experiment_id = experiment_named(client, experiment, tracking_uri())
        found = client.search_runs([experiment_id], f"tags.report_of = '{sweep}'")
        tags = {"report_of": sweep, "git_commit": git_commit()} | source("flows/sweep.py")
        tags |= description(
            f"The report of sweep `{sweep}` is report.html, among the artifacts. Its runs: `tags.sweep = '{sweep}'` in "
            f"the search field. `python -m flows.report --sweep '{sweep}'` makes it anew."
        )
        run = found[0] if found else client.create_run(experiment_id, run_name=f"report {sweep}", tags=tags)
        client.log_dict(run.info.run_id, settings, "sweep.yaml")
    return str(run.info.run_id)


def sweep_settings(sweep: str) -> dict[str, Any] | None:
    """The settings of the newest sweep with this tag; None where there is none."""
    client = open_client()
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.report_of = '{sweep}'", order_by=["attributes.start_time DESC"])
    return dict(yaml_artifact(found[0], "sweep.yaml")) if found else None


def log_report(summary: str, files: Sequence[Path]) -> None:
    """Hangs the files of a report on the sweep's summary run."""
    client = open_client()
    for file in files:
        client.log_artifact(summary, str(file))
    client.set_terminated(summary, "FINISHED")
