"""The report of a sweep, from what the tracking server has: one HTML file that needs nothing else, pictures, tables.

report.html    everything          accuracy.png shares.png rewards.png    its pictures
summary.csv    a row an arm        points.csv                             every point of every curve
"""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sgpo_core.analysis.comparison import ArmSummary, Comparison, RunRecord, compare, differing_settings
from sgpo_core.analysis.statistics import Interval, Paired
from sgpo_core.config.base import ConfigError
from sgpo_core.config.sweep import SweepConfig, SweepRun, arms
from sgpo_core.storage.atomic import write_text
from tasks.reports.text_table import text_table
from tasks.sweeps import pictures as sweep_pictures
from tasks.sweeps import tracking as sweep_tracking
from tasks.tracking import tracker as tracking

METRICS = (
    *("group/all_negative_frac", "group/mixed_frac", "group/all_positive_frac"),
    *("reward/outcome_mean", "reward/shaped_mean", "reward/rts_mean"),
    *("judge/calls", "judge/seconds", "judge/tokens", "rollout/tokens", "time/iteration_s"),
)
FILES = ("report.html", "summary.csv", "points.csv", *sweep_pictures.FILES)
COLUMNS = [
    *("arm", "runs", "final accuracy [95 %]", "vs. baseline [95 %]", "p", "p, corrected", "at equal tokens"),
    *("mean over run", "reach target", "iterations to it", "tokens to it", "tokens", "seconds", "judge calls"),
]


def publish_report(config: SweepConfig, runs: Sequence[SweepRun], folder: Path) -> tuple[Path, Comparison]:
    """Reads the sweep's runs (those of `sweep_runs`) from the tracking server, writes the report's files into `folder`
    and hangs them on a summary run. Returns the HTML file and what it says."""
    metric = f"eval/{config.benchmark}/avg_at_k"
    named = list(arms(config))
    summary = announce(config)
    run_ids = {run.config.run_id for run in runs}
    records = sweep_tracking.sweep_records(config.tag, run_ids, [metric, *METRICS])
    comparison = compare(records, named, config.seeds, config.baseline or named[0], metric, config.target)
    path = write_report(config.tag, comparison, records, folder)
    sweep_tracking.log_report(summary, [file for name in FILES if (file := folder / name).is_file()])
    return path, comparison


def announce(config: SweepConfig) -> str:
    """The sweep's summary run in MLflow, from its beginning: a report can be made while it is in progress."""
    return sweep_tracking.open_summary(config.experiment, config.tag, config.model_dump(mode="json"))


def announced(sweep: str) -> SweepConfig:
    """The settings of the sweep with this tag, from MLflow alone."""
    settings = sweep_tracking.sweep_settings(sweep)
    if settings is None:
        raise ConfigError(f"MLflow ({tracking.without_password(tracking.tracking_uri())}) knows no sweep {sweep!r}")
    return SweepConfig.model_validate(settings)


def write_report(sweep: str, comparison: Comparison, records: Sequence[RunRecord], folder: Path) -> Path:
    """The files of the report. `records` may be of unfinished runs, too; only finished ones are drawn."""
    finished = [r for r in records if r.finished]
    pictures = sweep_pictures.draw(finished, comparison, folder)
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    ).get_template("sweep_report.html")
    html = template.render(
        sweep=sweep,
        comparison=comparison,
        verdict=verdict(comparison),
        explanation=explanation(comparison),
        columns=COLUMNS,
        rows=[table_row(row, comparison) for row in comparison.arms],
        pictures=[(title, text, base64.b64encode(path.read_bytes()).decode()) for title, text, path in pictures],
        arms=[row.arm for row in comparison.arms],
        settings=differing_settings(finished),
    )
    write_text(folder / "summary.csv", _csv([COLUMNS, *(table_row(row, comparison) for row in comparison.arms)]))
    write_text(folder / "points.csv", _csv(_points(finished)))
    write_text(folder / "report.html", html)
    return folder / "report.html"


def verdict(comparison: Comparison) -> str:
    """The answer in a sentence or two, no stronger than the numbers."""
    best = max((row for row in comparison.arms if row.final), key=lambda r: r.final.mean, default=None)  # type: ignore[union-attr]
    if best is None or best.final is None:
        return "No run has finished: there is nothing to compare yet."
    text = f"Highest final accuracy: {best.arm}, {best.final.mean:.3f} (mean of {best.runs} runs)."
    if best.arm == comparison.baseline:
        return f"{text} That is the baseline."
    if best.versus is None:
        return f"{text} It has no finished seed in common with the baseline, {comparison.baseline}."
    least = min(1.0, best.versus.smallest_p * sum(row.versus is not None for row in comparison.arms))
    assert best.p_adjusted is not None
    sure = "significant" if best.p_adjusted <= 0.05 else "not significant"
    return (
        f"{text} That is {best.versus.mean:+.3f} against {comparison.baseline}, paired by seed, {sure} at 5 %: "
        f"corrected p = {best.p_adjusted:.3f}; {best.versus.n} pairs and so many arms allow none below {least:.3g}."
    )


def explanation(comparison: Comparison) -> str:
    budget = f"{comparison.token_budget:,.0f}" if comparison.token_budget else "no"
    pairs = [row.versus for row in comparison.arms if row.versus]
    least = f" (no p can be below {min(p.smallest_p for p in pairs):.3g} here)" if pairs else ""
    return (
        "Intervals are bootstrapped over runs: those of 2 or 3 runs are no more than their range; one run has none. "
        f"Differences are paired by seed; p is of the two-sided sign-flip permutation test{least}, corrected for the "
        "number of arms by Holm's method. Equal tokens: accuracy, between evaluations a line, "
        f"at {budget} sampled tokens (policy and judge), the fewest that any run used. Target: accuracy "
        f"{comparison.target:g}; the price is the median over runs, - unless more than half get there."
    )


def table_row(row: ArmSummary, comparison: Comparison) -> list[str]:
    """The cells of `COLUMNS`, as text."""
    versus = row.versus
    return [
        row.arm,
        str(row.runs),
        _interval(row.final),
        "baseline" if row.arm == comparison.baseline else _interval(versus, "+"),
        "-" if versus is None else f"{versus.p:.3f}",
        "-" if row.p_adjusted is None else f"{row.p_adjusted:.3f}",
        "-" if row.equal_tokens is None else f"{row.equal_tokens.mean:.3f}",
        _number(row.area, ".3f"),
        f"{row.reached} of {row.runs}",
        _number(row.iterations_to_target, ".0f"),
        *(_number(x, ",.0f") for x in (row.tokens_to_target, row.tokens, row.seconds, row.judge_calls)),
    ]


def as_text(comparison: Comparison) -> str:
    """The table for a terminal: the first columns."""
    rows = [COLUMNS[:9], *(table_row(row, comparison)[:9] for row in comparison.arms)]
    return text_table(rows)


def _interval(value: Interval | Paired | None, sign: str = "") -> str:
    if value is None:
        return "-"
    text = f"{value.mean:{sign}.3f}"
    return text if math.isnan(value.low) else f"{text} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _points(records: Sequence[RunRecord]) -> list[list[Any]]:
    rows: list[list[Any]] = [["arm", "seed", "run", "metric", "iteration", "value"]]
    for record in records:
        for metric, curve in record.curves.items():
            rows += [[record.arm, record.seed, record.run_id, metric, i, v] for i, v in sorted(curve.items())]
    return rows


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
