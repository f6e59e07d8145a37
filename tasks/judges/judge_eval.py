"""How good a judge is: its verdicts on solutions whose first wrong step is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger
from tqdm import tqdm

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.judge_eval import JudgeEvalConfig
from sgpo_core.config.loading import to_yaml
from sgpo_core.judges.base import Judge
from sgpo_core.judges.injections import attacks
from sgpo_core.judges.processbench import Example, load
from sgpo_core.judges.scores import JudgeScores, Report, score
from sgpo_core.storage.atomic import atomic_directory, write_json, write_text
from sgpo_core.storage.rollout_table import vote_number
from sgpo_core.types import Judgment
from tasks.judges.kinds import open_judge
from tasks.paths import home
from tasks.reports.text_table import text_table
from tasks.tracking.tracker import Tracker, description, new_attempt, source

_HEAD = (
    *("subset", "solutions", "acc. erroneous", "acc. correct", "F1"),
    *("early", "exact", "late", "missed", "false alarms", "abstained", "steps checked"),
)
_AT_ONCE = 64  # solutions between two movements of the progress bar


def load_examples(config: JudgeEvalConfig) -> list[Example]:
    """The solutions, at most `data.limit` of each subset. Raises ConfigError."""
    examples = load(config.data.path, config.data.max_bad_rows)
    taken: dict[str, int] = {}
    chosen = []
    for example in examples:
        taken[example.subset] = taken.get(example.subset, 0) + 1
        if not config.data.limit or taken[example.subset] <= config.data.limit:
            chosen.append(example)
    return chosen


def measure(judge: Judge, examples: Sequence[Example]) -> tuple[list[Judgment], Report]:
    """Judges all of them, with a progress bar, and compares with what is known."""
    judgments: list[Judgment] = []
    with tqdm(total=len(examples), desc="judge-eval", unit="solution", mininterval=1) as bar:
        for first in range(0, len(examples), _AT_ONCE):
            part = examples[first : first + _AT_ONCE]
            judgments += judge([example.item() for example in part])
            bar.update(len(part))
    return judgments, score(judgments, [e.label for e in examples], [e.subset for e in examples])


def evaluate_judge(
    config: JudgeEvalConfig, settings: JudgeSettings, examples: Sequence[Example]
) -> tuple[dict[str, Any], str]:
    """Opens the judge with these `settings` (those of `config`, its model made where it was missing), measures it, and
    keeps verdicts and scores in a folder and in MLflow. Returns the flow's result, whose `f1` is the overall one, and
    the scores as a table."""
    folder = home() / config.experiment / config.run_id
    tags = {"judge": config.judge.name, "preset": config.preset, "data": config.data.path}
    tags |= source("flows/judge_eval.py") | description(
        f"How good the judge `{config.judge.name}` is on solutions whose first wrong step is known "
        f"(`{config.data.path}`). Every verdict: `{folder}/verdicts.parquet`. The command is `python -m "
        "flows.judge_eval`; the settings are among the parameters."
    )
    tracker = Tracker.open(
        config.experiment, config.run_id, folder, new_attempt(), tags, config.model_dump(mode="json")
    )
    try:
        with open_judge(settings) as judge:
            began = time.monotonic()
            judgments, report = measure(judge, examples)
            metrics = _metrics(report) | {"judge_eval/seconds": time.monotonic() - began}
            if config.injections:
                metrics["judge_eval/injections_gained"] = float(sum(o.gained for o in attacks(judge)))
        result = {
            "run_id": config.run_id,
            "mlflow_run_id": tracker.run_id,
            "run_dir": str(folder),
            "f1": report.overall.f1,
            "final_metrics": metrics,
        }
        with atomic_directory(folder) as target:
            pq.write_table(_verdicts(examples, judgments), target / "verdicts.parquet")
            write_text(target / "settings.yaml", to_yaml(config))
            write_json(target / "result.json", result)
            tracker.log(0, metrics)
            tracker.finish()
        get_run_logger().info(f"judge {config.judge.name} on {config.data.path}\n{as_table(report)}")
    except BaseException as error:
        tracker.fail(error)
        raise
    return result, as_table(report)


def check_gate(settings: JudgeSettings, judge: Judge) -> None:
    """Raises ConfigError when the judge does not reach `judge.min_f1`."""
    if settings.min_f1 == 0:
        return
    examples = load(settings.gate_data, setting="judge.gate_data")
    asked = min(settings.gate_limit or len(examples), len(examples))
    _, report = measure(judge, [examples[i * len(examples) // asked] for i in range(asked)])
    s = report.overall
    if s.f1 < settings.min_f1:
        raise ConfigError(
            f"judge.min_f1={settings.min_f1}: the judge {settings.name} reaches an F1 of {s.f1:.3f} on judge.gate_data="
            f"{settings.gate_data} ({s.exact} of {s.erroneous} first errors exact, {s.early} early, {s.late} late, "
            f"{s.missed} missed; {s.false_alarms} of {s.correct} correct ones called wrong; {s.abstained_frac:.0%} "
            "abstained): choose another judge, or ask less of it"
        )


def as_table(report: Report) -> str:
    """The scores for a person to read."""
    rows = [_HEAD, *(_row(name, s) for name, s in report.subsets.items()), _row("all", report.overall)]
    return text_table(rows)


def _row(name: str, s: JudgeScores) -> tuple[str, ...]:
    shares = [f"{x:.3f}" if x is not None else "-" for x in (s.accuracy_erroneous, s.accuracy_correct, s.f1)]
    counts = [str(n) for n in (s.early, s.exact, s.late, s.missed, s.false_alarms)]
    checked = "-" if s.checked_steps is None else f"{s.checked_steps:,}"
    return name, str(s.erroneous + s.correct), *shares, *counts, f"{s.abstained_frac:.1%}", checked


def _metrics(report: Report) -> dict[str, float]:
    named = {"all": report.overall, **report.subsets}
    return {
        f"judge_eval/{subset}/{name}": float(value)
        for subset, scores in named.items()
        for name, value in asdict(scores).items()
        if value is not None
    }


def _verdicts(examples: Sequence[Example], judgments: Sequence[Judgment]) -> pa.Table:
    return pa.table(
        {
            "id": [e.id for e in examples],
            "subset": [e.subset for e in examples],
            "first_error_step": pa.array([e.label + 1 or None for e in examples], pa.int32()),  # the truth, 1-based
            "verdict": pa.array([j.verdict.first_error_step for j in judgments], pa.int32()),
            "verdict_status": [j.verdict.status.value for j in judgments],
            "verdict_reason": [j.verdict.reason for j in judgments],
            "verdict_votes": pa.array([[vote_number(v) for v in j.votes] for j in judgments], pa.list_(pa.int32())),
            "verdict_tokens": [j.prompt_tokens + j.completion_tokens for j in judgments],
            "verdict_cached": [j.cached for j in judgments],
        }
    )
