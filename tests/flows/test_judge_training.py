"""judge-training: what a finished one leaves, what a failed one does not, and what stops it before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.judge_training import judge_training
from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge_training import load_judge_training
from sgpo_core.judges.training_examples import chains_label
from sgpo_core.storage.atomic import read_json
from tasks.paths import home
from tasks.supervised.judge_exercises import exercises_of
from tasks.tracking.server import tracking_uri
from tests.helpers import prefect_page, quick_judge, write_columns


def rollouts(path: Path, problems: int, **changes: list[Any]) -> str:
    """Right solutions with the rule judge's verdicts."""
    made = chains.make_problems(problems, seed=21)
    examples = [chains_label(p, str(p.reference)) for p in made]
    columns = {
        "problem_id": [p.id for p in made],
        "prompt": [p.prompt for p in made],
        "answer": [p.answer for p in made],
        "reference": [p.reference for p in made],
        "response": [p.reference for p in made],
        "truncated": [False] * problems,
        "step_ends": [[step.end for step in e.item.steps] for e in examples],
        "first_error_step": [e.first_error_step for e in examples],
        "verdict_status": ["ok"] * problems,
    }
    write_columns(path, columns | changes)
    return str(path)


def test_a_judge_lies_where_its_report_says_and_in_mlflow(trained_judge: str) -> None:
    report = read_json(Path(trained_judge) / "report.json")
    assert report["run_dir"] == trained_judge
    assert 0.1 < report["final_metrics"]["judge_training/accuracy"] <= 1  # 5 to 9 of 32, as rounding goes
    client = mlflow.MlflowClient(tracking_uri())
    run = client.get_run(report["mlflow_run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.source.name"] == "flows/judge_training.py"
    assert trained_judge in run.data.tags["mlflow.note.content"]
    assert "tags.sweep" in client.get_experiment(run.info.experiment_id).tags["mlflow.note.content"]
    assert {k: run.data.metrics[k] for k in report["final_metrics"]} == report["final_metrics"]
    losses = [p.value for p in client.get_metric_history(report["mlflow_run_id"], "judge_training/loss")]
    assert len(losses) == 21 and losses[-1] < losses[0] / 2  # a point every 12 of 250 steps
    logged = {Path(a.path).name for a in client.list_artifacts(report["mlflow_run_id"], "judge")}
    assert logged >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "settings.yaml"}


def test_the_same_settings_are_trained_once(trained_judge: str, policy: str) -> None:
    report = read_json(Path(trained_judge) / "report.json")
    assert judge_training("tiny", quick_judge(policy)) == report
    page = prefect_page(report["run_id"])  # also of one that has found it there
    assert "| judge_training/accuracy | " in page
    assert f"`sgpo judge-eval judge=trained judge.model={trained_judge}`" in page


def test_a_shut_gate_leaves_no_judge(policy: str, engines: None, tmp_path: Path) -> None:
    """Distilled from a judge that calls every right solution wrong at step 3: two steps are too few to learn that."""
    path = rollouts(tmp_path / "rollouts.parquet", 40, first_error_step=[3] * 40)
    few = ["steps=2", "gate_rounds=1", "gate_steps=1", "gate_accuracy=1", "seed=5", f"data.rollouts=[{path}]"]
    with pytest.raises(RuntimeError, match=r"after 3 steps .* gate_accuracy=100% is wanted: add steps"):
        judge_training("tiny", [*quick_judge(policy), *few])
    client = mlflow.MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("judge-training")
    assert experiment is not None
    [failed] = client.search_runs([experiment.experiment_id], "attributes.status = 'FAILED'")
    assert "gate_accuracy" in failed.data.tags["error"]
    assert failed.data.metrics["judge_training/missed_frac"] <= 1
    key = failed.data.tags["run_id"]
    assert [p.name for p in (home() / "judges").glob(f"*{key}*")] == [f".{key}.lock"]


@pytest.mark.parametrize(
    ("problems", "changes", "advice"),
    [
        (10, {}, r"10 verdicts \(0 responses without one\).*name more files"),
        (40, {"verdict_status": ["abstained"] * 40}, r"0 verdicts \(40 responses without one\)"),
        (
            40,
            {"first_error_step": [9] * 40},
            r"40 broken rows, 0 are allowed \(data.max_bad_rows\): .*row 1: first",
        ),
    ],
)
def test_rollouts_that_teach_nothing_stop_it_before_anything_starts(
    tmp_path: Path, problems: int, changes: dict[str, list[Any]], advice: str
) -> None:
    path = rollouts(tmp_path / "rollouts.parquet", problems, **changes)
    with pytest.raises(ConfigError, match=advice):
        exercises_of(load_judge_training("tiny", [f"data.rollouts=[{path}]"]))
